"""Datasets: intake of archives, the checks they must pass, and what became of them."""
