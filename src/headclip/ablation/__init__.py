"""Ablations: what is varied is data (`definitions`); training, judging, tables and plots are the same for all."""
