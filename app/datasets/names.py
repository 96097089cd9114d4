"""Names of files in archives: data that is looked at, never a path that is opened."""

from __future__ import annotations

import re
import unicodedata

MAX_NAME = 1024
MAX_PART = 255

_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")  # what is shown isn't what is written
_DRIVE = re.compile(r"^[A-Za-z]:")
_LITTER = frozenset({"__macosx", "$recycle.bin", "thumbs.db", "ehthumbs.db", "desktop.ini"})


def trouble(name: str) -> str | None:
    """Why this name is refused, or None when it is an ordinary relative path."""
    parts = name.split("/")
    if not name:
        return "the name is empty"
    if len(name) > MAX_NAME or any(len(part) > MAX_PART for part in parts):
        return f"the name is longer than {MAX_NAME} characters, or a part than {MAX_PART}"
    if "\\" in name:
        return "it has a backslash"
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
        return "it has a control character"
    if _TURNS.search(name):
        return "it has a character that turns the direction of text"
    if name.startswith("/"):
        return "it is absolute"
    if _DRIVE.match(name):
        return "it names a drive"
    if ".." in parts:
        return "it climbs out with '..'"
    return None


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of an ordinary name, in NFC; '.' and empty ones say nothing and are dropped."""
    normal = unicodedata.normalize("NFC", name)
    return tuple(part for part in normal.split("/") if part not in ("", "."))


def fold(name: str) -> str:
    """What decides whether two names are the same on some file system, or to the eye.

    Windows drops dots and spaces at the end of a part; nobody sees a character of no width.
    """
    normal = unicodedata.normalize("NFC", name)
    if not normal.isascii():
        normal = "".join(char for char in normal if unicodedata.category(char) != "Cf")
    parts = (part.rstrip(". ") or part for part in normal.split("/"))
    return unicodedata.normalize("NFC", "/".join(parts).casefold())


def is_litter(parts: tuple[str, ...]) -> bool:
    """Whether an operating system or an editor left this behind; hidden files always count."""
    return any(part.startswith(".") or part.casefold() in _LITTER for part in parts)
