"""`python -m tdmr`."""

from tdmr.cli import app

app()
