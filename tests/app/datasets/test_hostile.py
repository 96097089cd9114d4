"""Hostile archives, made by hand: each is refused for its own reason, and leaves nothing."""

from __future__ import annotations

import random
import resource
import struct
import time
import zipfile
from pathlib import Path

import pytest

from tests.app.datasets.conftest import Check, codes
from tests.app.datasets.zips import (
    Raw,
    build,
    forced_zip64,
    good_files,
    pack,
    png,
    streamed,
    widened,
    with_good,
)

GOOD = pack(good_files())
ZEROS = b"\0" * (3 << 20)


def named(name: bytes, flags: int = 1 << 11) -> bytes:
    return with_good(Raw(name, png(9), flags=flags))


def shared_bytes() -> bytes:
    """Two entries over the same bytes: what made 11 KB into 201 MB."""
    return build([Raw(b"a/1.png", png(1)), Raw(b"a/1.png", png(1), offset=0)])


def nested_bytes() -> bytes:
    """An entry whose data holds the header and the data of another one."""
    inner = build([Raw(b"a/2.png", png(2))])
    outer = Raw(b"a/1.png", inner, method=0)
    return build([outer, Raw(b"a/2.png", png(2), offset=30 + len(b"a/1.png"))])


def zip64(size: int) -> bytes:
    return struct.pack("<2HQ", 1, 8, size)


NAMES = {
    "parent": b"../a/9.png",
    "parent-inside": b"a/../../9.png",
    "parent-last": b"a/..",
    "absolute": b"/etc/9.png",
    "double-slash": b"//host/share/9.png",
    "drive": b"C:/9.png",
    "drive-relative": b"c:9.png",
    "unc": b"\\\\host\\share\\9.png",
    "backslash": b"a\\9.png",
    "backslash-parent": b"..\\..\\9.png",
    "nul": b"a/9.png\0.txt",
    "newline": b"a/9\n.png",
    "escape": b"a/\x1b[31m9.png",
    "long-part": b"a/" + b"x" * 300 + b".png",
    "long": b"a/" + b"/".join([b"x" * 200] * 6) + b"/9.png",
    "empty": b"",
}

ARCHIVES = {
    "nothing": (b"", "not_an_archive"),
    "text": (b"hello" * 100, "not_an_archive"),
    "tar": (b"a/1.png" + b"\0" * 250 + b"ustar" + b"\0" * 700, "not_an_archive"),
    "cut": (GOOD[:-30], "not_an_archive"),
    "tail-only": (b"x" * 40 + GOOD[-22:], "malformed_archive"),
    "prefix-unshifted": (b"#!/bin/sh\n" + GOOD, "malformed_archive"),
    "suffix": (GOOD + b"x", "not_an_archive"),
    "directory-moved": (build([Raw(b"a/1.png", png())], shift=4), "malformed_archive"),
    "count-high": (build([Raw(b"a/1.png", png())], count=2), "malformed_archive"),
    "count-low": (
        build([Raw(b"a/1.png", png(1)), Raw(b"a/2.png", png(2))], count=1),
        "malformed_archive",
    ),
    "count-huge": (build([Raw(b"a/1.png", png())], count=60_000), "malformed_archive"),
    "multi-disk": (build([Raw(b"a/1.png", png())], disk=1), "multi_part_archive"),
    "multi-part": (build([Raw(b"a/1.png", png())], total=3), "multi_part_archive"),
    "overlap": (shared_bytes(), "overlapping_files"),
    "nested-entry": (nested_bytes(), "overlapping_files"),
    "offset-beyond": (with_good(Raw(b"a/9.png", png(), offset=10**6)), "malformed_archive"),
    "into-directory": (
        with_good(Raw(b"a/9.png", png(9), method=0, size=5000, packed_size=5000)),
        "malformed_archive",
    ),
    "two-names": (
        with_good(Raw(b"a/9.png", png(9), local={"name": b"b/9.png"})),
        "malformed_archive",
    ),
    "two-sizes": (with_good(Raw(b"a/9.png", png(9), local={"size": 1})), "malformed_archive"),
    "two-packed-sizes": (
        with_good(Raw(b"a/9.png", png(9), local={"packed": 1})),
        "malformed_archive",
    ),
    "two-checksums": (with_good(Raw(b"a/9.png", png(9), local={"crc": 1})), "malformed_archive"),
    "two-methods": (with_good(Raw(b"a/9.png", png(9), local={"method": 0})), "malformed_archive"),
    "half-encrypted": (
        with_good(Raw(b"a/9.png", png(9), local={"flags": 1 | 1 << 11})),
        "malformed_archive",
    ),
    "stored-two-sizes": (
        with_good(Raw(b"a/9.png", png(9), method=0, size=10)),
        "malformed_archive",
    ),
    "folder-with-content": (with_good(Raw(b"a/x/", b"secret")), "malformed_archive"),
    "zip64-locator-lost": (widened(GOOD, locator=10**6), "malformed_archive"),
    "zip64-locator-off": (widened(GOOD, locator=-4), "malformed_archive"),
    "zip64-two-counts": (widened(GOOD, count=5), "malformed_archive"),
    "zip64-size-missing": (with_good(Raw(b"a/9.png", png(), size=0xFFFFFFFF)), "malformed_archive"),
    "false-utf8": (named(b"a/\xff\xfe.png"), "malformed_archive"),
    "encrypted": (with_good(Raw(b"a/9.png", png(9), flags=1 | 1 << 11)), "encrypted"),
    "strongly-encrypted": (with_good(Raw(b"a/9.png", png(9), flags=1 << 6)), "encrypted"),
    "masked": (with_good(Raw(b"a/9.png", png(9), flags=1 << 13)), "encrypted"),
    "link": (with_good(Raw(b"a/9.png", b"/etc/passwd", mode=0o120777)), "link"),
    "link-not-unix": (with_good(Raw(b"a/9.png", b"x", mode=0o120777, system=0)), "link"),
    "device": (with_good(Raw(b"a/9.png", mode=0o060644)), "special_file"),
    "character-device": (with_good(Raw(b"a/9.png", mode=0o020644)), "special_file"),
    "pipe": (with_good(Raw(b"a/9.png", mode=0o010644)), "special_file"),
    "socket": (with_good(Raw(b"a/9.png", mode=0o140644)), "special_file"),
    "bzip2": (with_good(Raw(b"a/9.png", png(9), method=12)), "unsupported_compression"),
    "unknown-method": (with_good(Raw(b"a/9.png", png(9), method=99)), "unsupported_compression"),
    "bomb": (with_good(Raw(b"a/9.png", ZEROS)), "compression_ratio"),
    "bomb-in-parts": (
        build([Raw(b"a/%d.png" % n, ZEROS[: 1 << 20]) for n in range(5)]),
        "compression_ratio",
    ),
    "claims-terabytes": (
        with_good(
            Raw(b"a/9.png", png(9), size=0xFFFFFFFF, central_extra=zip64(2**40)),
        ),
        "compression_ratio",
    ),
    "more-than-declared": (with_good(Raw(b"a/9.png", png(9), size=10)), "damaged_file"),
    "less-than-declared": (with_good(Raw(b"a/9.png", png(9), size=500)), "damaged_file"),
    "wrong-checksum": (with_good(Raw(b"a/9.png", png(9), crc=5)), "damaged_file"),
    "broken-deflate": (with_good(Raw(b"a/9.png", png(9), packed=b"\xff" * 40)), "damaged_file"),
    "cut-deflate": (
        with_good(Raw(b"a/9.png", png(9), packed=Raw(b"", png(9)).bytes_packed()[:-6])),
        "damaged_file",
    ),
    "same-name-twice": (with_good(Raw(b"a/1.png", png(9))), "name_collision"),
    "case": (with_good(Raw(b"a/1.PNG", png(9))), "name_collision"),
    "case-of-folder": (with_good(Raw(b"A/9.png", png(9))), "name_collision"),
    "normal-forms": (
        with_good(Raw("a/\u00e9.png".encode(), png(8)), Raw("a/e\u0301.png".encode(), png(9))),
        "name_collision",
    ),
    "file-and-folder": (with_good(Raw(b"a/1.png/2.png", png(9))), "name_collision"),
    "nested-zip": (with_good(Raw(b"a/9.zip", GOOD)), "nested_archive"),
    "nested-zip-as-image": (with_good(Raw(b"a/9.png", GOOD)), "nested_archive"),
    "nested-gzip": (with_good(Raw(b"a/9.tgz", b"\x1f\x8b\x08" + b"x" * 50)), "nested_archive"),
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_unsafe_names_are_refused_and_named(checked: Check, tmp_path: Path, name: bytes) -> None:
    report = checked(named(name))
    assert not report["ok"]
    assert codes(report) == ["unsafe_name"]
    assert report["findings"][0]["file"].isprintable() or not name
    assert not (tmp_path / "out" / "dataset.zip").exists()


@pytest.mark.parametrize(("content", "code"), ARCHIVES.values(), ids=ARCHIVES.keys())
def test_hostile_archives_are_refused_for_their_reason(
    checked: Check, tmp_path: Path, content: bytes, code: str
) -> None:
    before = set(tmp_path.rglob("*"))
    began, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = checked(content)
    assert code in codes(report)
    assert not report["ok"]
    assert report["version"] is None
    assert all(each["advice"] and each["detail"] for each in report["findings"])
    left = {path.relative_to(tmp_path).as_posix() for path in set(tmp_path.rglob("*")) - before}
    assert left == {"upload", "progress.jsonl", "out", "out/report.json"}
    assert time.process_time() - began < 5  # of CPU, whatever the machine is doing
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 64 << 10  # KiB


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


def damaged(dice: random.Random, content: bytes) -> bytes:
    """The archive with a few bytes changed, removed or put in."""
    body = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        place = dice.randrange(len(body))
        what = dice.random()
        if what < 0.7:
            body[place] = dice.choice((0, 1, 128, 255, dice.randrange(256)))
        elif what < 0.85:
            body[place:place] = dice.randbytes(dice.randrange(1, 9))
        else:
            del body[place : place + dice.randrange(1, 20)]
    return bytes(body)


def test_damage_of_any_kind_is_a_finding_never_a_crash(checked: Check, tmp_path: Path) -> None:
    dice = random.Random(0)
    seeds = [GOOD, widened(GOOD), streamed(good_files()), forced_zip64(good_files())]
    for _ in range(300):
        report = checked(damaged(dice, dice.choice(seeds)))
        assert report["ok"] == (not codes(report))
        assert (tmp_path / "out" / "dataset.zip").exists() == report["ok"]
