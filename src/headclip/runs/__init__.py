"""Run folders: what they hold, how they are written and read, their page, and what is made of them afterwards."""
