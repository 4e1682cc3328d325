"""The frozen two-tower model that every method reads."""
