"""Class names that come as text: from a manifest, a sidecar file or a column."""

from __future__ import annotations

import unicodedata

from app.datasets.findings import Findings, shown
from tdmr.data.index import SPLITS, Split

MAX_LABEL = 200
_SPLIT_NAMES: dict[str, Split] = {
    **{split: split for split in SPLITS},
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}


def label(text: str) -> str:
    """A class name as it is used: NFC, without spaces around it."""
    return unicodedata.normalize("NFC", text).strip()


def trouble(text: str) -> str | None:
    """Why a class name can't be taken, or None."""
    if not text:
        return "has no label"
    if len(text) > MAX_LABEL:
        return f"has a label of more than {MAX_LABEL} characters"
    if not text.isprintable():
        return "has a label with characters that can't be printed"
    return None


def refuse(where: str, reason: str, findings: Findings, file: str | None = None) -> None:
    """Report an image whose label can't be taken."""
    findings.error(
        "bad_label",
        f"{shown(where)} {reason}.",
        "Give each image the name of its class, or leave it out.",
        file,
    )


def split(text: str) -> Split | None:
    """The split of that name, also by its other usual names; None for no name of a split."""
    return _SPLIT_NAMES.get(text.strip().casefold())


def refuse_split(where: str, text: str, findings: Findings, file: str | None = None) -> None:
    """Report an image whose split can't be taken."""
    findings.error(
        "bad_split",
        f"{shown(where)} is in the split {shown(text)}.",
        f"Use {', '.join(SPLITS)}, or leave the split out.",
        file,
    )
