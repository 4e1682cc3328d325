"""Losses, trainer, pretraining and checkpoints."""
