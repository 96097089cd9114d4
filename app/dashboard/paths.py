"""Where the dashboard is: its address on the server, and its files on disk."""

from __future__ import annotations

from pathlib import Path

PATH = "/dashboard"
SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"  # below it
STATIC = Path(__file__).parent / "static"


def within(path: str) -> str:
    """The address of a page, or of what is lent of the API, below the dashboard."""
    return f"{PATH}{path}"
