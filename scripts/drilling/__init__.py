"""The parts of scripts/drills.py: processes to kill, jobs, a look at what they left behind, and other mishaps."""
