"""Deletion, and for how long things are kept."""
