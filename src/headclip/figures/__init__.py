"""Figures for papers and pages, drawn from what `headclip.inspection` computes. They need matplotlib."""
