"""Archives under limits, and with many faults at once; the hostile ones are in test_corpus.py."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from app.datasets.findings import NAME_LENGTH
from tests.app.datasets.conftest import Check, codes
from tests.app.datasets.corpus import zip_names
from tests.app.datasets.corpus.zip_cases import shared_bytes
from tests.app.datasets.corpus.zip_names import named
from tests.app.datasets.zips import Raw, good_files, pack, png, with_good

GOOD = pack(good_files())


@pytest.mark.parametrize("name", ["escape", "newline", "nul", "right-to-left", "long-part"])
def test_an_unsafe_name_is_shown_so_that_it_does_no_harm(checked: Check, name: str) -> None:
    report = checked(named(zip_names.UNSAFE[name]))
    assert codes(report) == ["unsafe_name"]
    assert report["findings"][0]["file"].isprintable()
    assert len(report["findings"][0]["file"]) <= NAME_LENGTH


def test_too_many_entries_are_refused_before_any_is_read(checked: Check) -> None:
    assert codes(checked(GOOD, max_entries=5)) == ["too_many_files"]


def test_too_many_bytes_are_refused_before_any_is_unpacked(checked: Check) -> None:
    assert codes(checked(GOOD, max_unpacked_bytes=100)) == ["too_many_bytes"]


def test_every_fault_is_listed_not_only_the_first(checked: Check) -> None:
    content = with_good(
        Raw(b"../9.png", png(9)),
        Raw(b"a/link.png", b"x", mode=0o120777),
        Raw(b"a/locked.png", png(8), flags=1),
        Raw(b"b/broken.png", b"\x89PNG\r\n\x1a\nrest"),
        Raw(b"b/empty.png", b""),
    )
    found = codes(checked(content))
    assert found == ["unsafe_name", "link", "encrypted", "unreadable_image", "empty_file"]


def test_python_itself_would_have_taken_some_of_these(tmp_path: Path) -> None:
    """What the strict reader is for: the standard library opens the overlap and lists it."""
    path = tmp_path / "overlap.zip"
    path.write_bytes(shared_bytes())
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 2
