"""Foundations of an owner's own: uploaded, checked, named by jobs."""
