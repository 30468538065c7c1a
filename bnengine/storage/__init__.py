"""Checkpoints, run folders and atomic writes."""
