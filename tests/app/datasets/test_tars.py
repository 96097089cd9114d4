"""Tar archives: what is taken, and under which limits; hostile ones are in test_corpus.py."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import pytest

from tests.app.datasets import zips
from tests.app.datasets.conftest import Check, codes
from tests.app.datasets.tarballs import Entry, build, pack, pax, zipped
from tests.app.datasets.zips import good_files, png

FILES = good_files()
GOOD = [Entry(name, data) for name, data in FILES.items()]


TAKEN = {
    "pax": pack(FILES, tarfile.PAX_FORMAT),
    "gnu": pack(FILES, tarfile.GNU_FORMAT),
    "ustar": pack(FILES, tarfile.USTAR_FORMAT),
    "gzip": zipped(pack(FILES)),
    "gzip-in-two": gzip.compress(pack(FILES)[:1000]) + gzip.compress(pack(FILES)[1000:]),
    "gzip-with-zeros": zipped(pack(FILES)) + bytes(512),
    "folders": pack({"a/": b"", "b/": b"", **FILES}),
    "dots": pack({f"./{name}": data for name, data in FILES.items()}),
    "one-zero-block": build(GOOD, bytes(512)),
    "old-type": build([Entry(n, d, tarfile.AREGTYPE) for n, d in FILES.items()]),
    "unicode": pack({f"\u732b {n}": d for n, d in FILES.items()}),
    "long-names-pax": pack({n.replace("/", "/" + "x" * 180 + "/"): d for n, d in FILES.items()}),
    "long-names-gnu": pack(
        {n.replace("/", "/" + "x" * 180 + "/"): d for n, d in FILES.items()}, tarfile.GNU_FORMAT
    ),
    "latin-1": build([Entry(n.replace("0", "\udce9"), d) for n, d in FILES.items()]),
    "global-header": pax(b"20 comment=by hand.\n"[:20], tarfile.XGLTYPE) + pack(FILES),
}  # fmt: skip


@pytest.mark.parametrize("content", TAKEN.values(), ids=TAKEN.keys())
def test_good_archives_are_taken_without_a_word(checked: Check, content: bytes) -> None:
    report = checked(content)
    assert report["findings"] == []
    assert report["images"] == len(FILES)


def test_a_tar_and_a_zip_of_the_same_files_are_the_same_version(
    checked: Check, tmp_path: Path
) -> None:
    versions = set()
    for content in (zips.pack(FILES), pack(FILES), zipped(pack(FILES))):
        versions.add(checked(content)["version"])
        for file in (tmp_path / "out").iterdir():
            file.unlink()
    assert len(versions) == 1


def test_a_bomb_is_given_up_long_before_it_is_unpacked(checked: Check, tmp_path: Path) -> None:
    report = checked(zipped(bytes(256 << 20)), max_unpacked_bytes=8 << 20)
    assert codes(report) in (["too_many_bytes"], ["compression_ratio"])


@pytest.mark.parametrize("wrapped", [False, True])
def test_entries_are_counted(checked: Check, wrapped: bool) -> None:
    content = pack({f"a/{n}.png": b"" for n in range(50)}, tarfile.USTAR_FORMAT)
    report = checked(zipped(content) if wrapped else content, max_entries=49)
    assert codes(report) == ["too_many_files"]


def test_headers_that_are_no_entries_are_counted_too(checked: Check) -> None:
    content = build([Entry("x", png(1), prefix=pax(b"11 a=aaaaaa\n"[:11]) * 60)])
    report = checked(content, max_entries=50)
    assert codes(report) in (["too_many_files"], ["malformed_archive"])
