"""Datasets: what is in them (`index`, torch-free) and their pixels (`pixels`)."""
