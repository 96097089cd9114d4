"""Names: what is refused, what is the same, and what nobody meant to upload."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.datasets.names import fold, is_litter, parts_of, trouble


@pytest.mark.parametrize("name", ["a/1.png", "a b/ü.png", "./a/1.png", "a/..b/1.png", "ab:c/1.png"])
def test_ordinary_names_are_taken(name: str) -> None:
    assert trouble(name) is None


def test_parts_are_normal_and_say_something() -> None:
    assert parts_of("./a//e\u0301/1.png") == ("a", "\u00e9", "1.png")


@pytest.mark.parametrize(
    ("one", "other"), [("A", "a"), ("\u00e9", "e\u0301"), ("stra\u00dfe", "STRASSE"), ("ﬁ", "FI")]
)
def test_one_name_on_some_computer(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    "name", ["__MACOSX/a/._1.png", "a/.DS_Store", "a/Thumbs.db", "a/desktop.ini", ".git/config"]
)
def test_litter(name: str) -> None:
    assert is_litter(parts_of(name))


@given(st.text(max_size=60))
def test_what_is_taken_can_never_leave_its_folder(name: str) -> None:
    if trouble(name) is None:
        assert ".." not in parts_of(name)
        assert not name.startswith(("/", "\\"))
        assert not any(unicodedata.category(char) == "Cc" for char in name)
