"""From image files to a run folder: the detector, batching, run folders and their report."""
