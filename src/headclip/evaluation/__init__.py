"""Evaluation: data sets judged, scored with `headclip.metrics`, intervals, tables, comparisons."""
