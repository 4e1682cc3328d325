"""The parts of scripts/fuzz.py: sound files of every kind, ways to damage them, and what reads them."""
