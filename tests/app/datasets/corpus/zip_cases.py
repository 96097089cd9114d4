"""Zip archives that contradict themselves, hide what they hold, or aren't whole."""

from __future__ import annotations

import struct
import zipfile

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
ONE = Raw(b"a/1.png", png(1))
END = len(GOOD) - 22
DIRECTORY = struct.unpack("<L", GOOD[-6:-2])[0]


def patched(content: bytes, place: int, new: bytes) -> bytes:
    """The same with some bytes replaced; a negative place counts from the end."""
    place %= len(content)
    return content[:place] + new + content[place + len(new) :]


def zip64(*values: int) -> bytes:
    """The extra field for sizes and places that don't fit into 32 bits."""
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values)


def shared_bytes() -> bytes:
    """Two entries over the same bytes: what made 11 KB into 201 MB."""
    return build([Raw(b"a/1.png", png(1)), Raw(b"a/1.png", png(1), offset=0)])


def nested_bytes() -> bytes:
    """An entry whose data holds the header and the data of another one."""
    inner = build([Raw(b"a/2.png", png(2))])
    outer = Raw(b"a/1.png", inner, method=0)
    return build([outer, Raw(b"a/2.png", png(2), offset=30 + len(b"a/1.png"))])


def lying(**fields: object) -> bytes:
    """An image whose entry says something else than it should."""
    return with_good(Raw(b"a/9.png", png(9), **fields))  # type: ignore[arg-type]  # what is given is meant to vary


def wide(**fields: int) -> bytes:
    """A zip64 archive whose end record says something else; places as in APPNOTE 4.3.14."""
    content = widened(GOOD)
    record = content.rindex(b"PK\x06\x06")
    places = {
        "length": (4, "<Q"),
        "here": (24, "<Q"),
        "total": (32, "<Q"),
        "size": (40, "<Q"),
        "start": (48, "<Q"),
        "disk": (56 + 4, "<L"),
        "disks": (56 + 16, "<L"),
    }
    for name, value in fields.items():
        place, form = places[name]
        content = patched(content, record + place, struct.pack(form, value))
    return content


def central(place: int, new: bytes) -> bytes:
    """The good archive with some bytes of its first directory entry replaced."""
    return patched(GOOD, DIRECTORY + place, new)


NO_END = {
    "nothing": b"",
    "text": b"hello" * 100,
    "two-bytes": b"PK",
    "first-header-only": GOOD[:30],
    "first-file-only": GOOD[:100],
    "half": GOOD[: len(GOOD) // 2],
    "without-directory": GOOD[:DIRECTORY],
    "half-a-directory": GOOD[: DIRECTORY + 100],
    "without-end": GOOD[:END],
    "half-an-end": GOOD[: END + 11],
    "cut": GOOD[:-30],
    "one-byte-short": GOOD[:-1],
    "tail-only": b"x" * 40 + GOOD[-22:],
    "prefix-unshifted": b"#!/bin/sh\n" + GOOD,
    "suffix": GOOD + b"x",
    "suffix-of-zeros": GOOD + bytes(70_000),
    "comment-longer-than-said": build([ONE], comment=b"xx")[:-1],
    "comment-shorter-than-said": patched(GOOD, -2, b"\5\0"),
    "spanned-marker": b"PK\x07\x08" + GOOD,
    "rar": b"Rar!\x1a\7\0" + bytes(600),
    "seven-zip": b"7z\xbc\xaf\x27\x1c" + bytes(600),
    "xz": b"\xfd7zXZ\0" + bytes(600),
    "bzip2": b"BZh91AY&SY" + bytes(600),
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(600),
    "html": b"<!doctype html><script>alert(1)</script>" * 20,
    "image": png(),
    "program": b"\x7fELF" + bytes(600),
}

MALFORMED = {
    "directory-moved": build([ONE], shift=4),
    "directory-moved-back": build([ONE], shift=-4),
    "count-high": build([ONE], count=2),
    "count-low": build([ONE, Raw(b"a/2.png", png(2))], count=1),
    "count-none": build([ONE, Raw(b"a/2.png", png(2))], count=0),
    "count-huge": build([ONE], count=60_000),
    "count-full": build([ONE], count=0xFFFF),
    "two-archives": GOOD + GOOD,
    "archive-in-comment": build([ONE], comment=GOOD),
    "directory-signature": central(0, b"PK\x01\x03"),
    "directory-name-long": central(28, b"\xff\xff"),
    "directory-extra-long": central(30, b"\xff\xff"),
    "directory-comment-long": central(32, b"\xff\xff"),
    "directory-name-short": central(28, b"\x01\x00"),
    "local-signature": patched(GOOD, 0, b"PK\x05\x06"),
    "offset-beyond": lying(offset=10**6),
    "offset-into-end": lying(offset=len(GOOD) - 10),
    "offset-missing": lying(offset=0xFFFFFFFF),
    "offset-past-all-files": lying(offset=0xFFFFFFFF, central_extra=zip64(2**63 - 1)),
    "offset-past-all-numbers": lying(offset=0xFFFFFFFF, central_extra=zip64(2**64 - 1)),
    "into-directory": lying(method=0, size=5000, packed_size=5000),
    "packed-past-all-files": lying(packed_size=0xFFFFFFFF, central_extra=zip64(2**63)),
    "two-names": lying(local={"name": b"b/9.png"}),
    "two-names-climbing": lying(local={"name": b"../../etc/passwd"}),
    "two-names-case": lying(local={"name": b"a/9.PNG"}),
    "two-sizes": lying(local={"size": 1}),
    "two-packed-sizes": lying(local={"packed": 1}),
    "two-checksums": lying(local={"crc": 1}),
    "two-methods": lying(local={"method": 0}),
    "half-encrypted": lying(local={"flags": 1 | 1 << 11}),
    "descriptor-two-sizes": lying(flags=8 | 1 << 11, local={"size": 1}),
    "descriptor-two-checksums": lying(flags=8 | 1 << 11, local={"crc": 1, "size": 0, "packed": 0}),
    "stored-two-sizes": lying(method=0, size=10),
    "folder-with-content": with_good(Raw(b"a/x/", b"secret")),
    "folder-by-mode-with-content": with_good(Raw(b"a/x", b"secret", mode=0o040755)),
    "zip64-locator-lost": widened(GOOD, locator=10**6),
    "zip64-locator-off": widened(GOOD, locator=-4),
    "zip64-locator-itself": widened(GOOD, locator=56),
    "zip64-locator-disk": wide(disk=3),
    "zip64-locator-disks": wide(disks=7),
    "zip64-two-counts": widened(GOOD, count=5),
    "zip64-count-huge": wide(here=2**60, total=2**60),
    "zip64-size-huge": wide(size=2**63),
    "zip64-start-huge": wide(start=2**64 - 1),
    "zip64-start-and-size-wrap": wide(start=2**63, size=2**63),
    "zip64-record-long": wide(length=2**40),
    "zip64-record-short": wide(length=0),
    "zip64-size-missing": lying(size=0xFFFFFFFF),
    "zip64-size-half": lying(size=0xFFFFFFFF, central_extra=b"\1\0\4\0abcd"),
    "zip64-extra-cut": lying(size=0xFFFFFFFF, central_extra=b"\1\0\xff\xff1234567"),
    "zip64-local-missing": lying(local={"size": 0xFFFFFFFF}),
    "zip64-local-else": lying(local={"size": 0xFFFFFFFF}, local_extra=zip64(5)),
    "false-utf8": lying().replace(b"a/9.png", b"a/\xff\xfepng"),
    "overlong-utf8": with_good(Raw(b"a/..\xc0\xaf9.png", png(9))),
    "surrogate-in-utf8": with_good(Raw(b"a/\xed\xa0\x80.png", png(9))),
    "cut-utf8": with_good(Raw(b"a/9.png\xe7\x8c", png(9))),
    "streamed-cut-inside": (lambda s: s[:60] + s[70:])(streamed(good_files())),
    "zip64-cut-inside": (lambda s: s[:60] + s[70:])(forced_zip64(good_files())),
    "wrapped-count": build([Raw(b"a/%d.png" % n) for n in range(300)], count=300 & 0xFF),
}

OTHERS = {
    "multi-disk": (build([ONE], disk=1), "multi_part_archive"),
    "multi-part": (build([ONE], total=3), "multi_part_archive"),
    "zip64-multi-part": (wide(here=3), "multi_part_archive"),
    "overlap": (shared_bytes(), "overlapping_files"),
    "offset-into-data": (lying(offset=31), "overlapping_files"),
    "offset-off-by-one": (
        build([Raw(b"a/1.png", png(1)), Raw(b"a/2.png", png(2), offset=1)]),
        "overlapping_files",
    ),
    "nested-entry": (nested_bytes(), "overlapping_files"),
    "encrypted": (lying(flags=1 | 1 << 11), "encrypted"),
    "encrypted-aes": (lying(flags=1 | 1 << 11, method=99), "encrypted"),
    "strongly-encrypted": (lying(flags=1 << 6), "encrypted"),
    "masked": (lying(flags=1 << 13), "encrypted"),
    "link": (with_good(Raw(b"a/9.png", b"/etc/passwd", mode=0o120777)), "link"),
    "link-not-unix": (with_good(Raw(b"a/9.png", b"x", mode=0o120777, system=0)), "link"),
    "link-mac": (with_good(Raw(b"a/9.png", b"x", mode=0o120777, system=19)), "link"),
    "link-called-folder": (with_good(Raw(b"a/x/", b"/etc", mode=0o120777)), "link"),
    "link-then-through-it": (
        with_good(Raw(b"c", b"/tmp", mode=0o120777), Raw(b"c/tdmr-escaped", png(9))),
        "link",
    ),
    "device": (with_good(Raw(b"a/9.png", mode=0o060644)), "special_file"),
    "character-device": (with_good(Raw(b"a/9.png", mode=0o020644)), "special_file"),
    "pipe": (with_good(Raw(b"a/9.png", mode=0o010644)), "special_file"),
    "socket": (with_good(Raw(b"a/9.png", mode=0o140644)), "special_file"),
    "whiteout": (with_good(Raw(b"a/9.png", mode=0o160000)), "special_file"),
    **{
        f"method-{method}": (lying(method=method), "unsupported_compression")
        for method in (1, 6, 9, 12, 14, 93, 95, 97, 98, 99, 0xFFFF)
    },
    "lzma": (pack(good_files(), zipfile.ZIP_LZMA), "unsupported_compression"),
    "more-than-declared": (lying(size=10), "damaged_file"),
    "less-than-declared": (lying(size=500), "damaged_file"),
    "wrong-checksum": (lying(crc=5), "damaged_file"),
    "stored-wrong-checksum": (lying(method=0, crc=5), "damaged_file"),
    "no-checksum": (lying(crc=0), "damaged_file"),
    "broken-deflate": (lying(packed=b"\xff" * 40), "damaged_file"),
    "reserved-block": (lying(packed=b"\x07" + bytes(40)), "damaged_file"),
    "stored-block-cut": (lying(packed=b"\x01\xff\xff\x00\x00abc"), "damaged_file"),
    "stored-block-lies": (lying(packed=b"\x01\x05\x00\x05\x00hello"), "damaged_file"),
    "distance-too-far": (lying(packed=b"\x4b\x04\x51\x00"), "damaged_file"),
    "empty-blocks": (lying(packed=b"\0\0\0\xff\xff" * 100_000), "damaged_file"),
    "no-deflate": (lying(packed=b""), "damaged_file"),
    "zlib-not-deflate": (
        lying(packed=b"\x78\x9c" + Raw(b"", png(9)).bytes_packed()),
        "damaged_file",
    ),
    "cut-deflate": (lying(packed=Raw(b"", png(9)).bytes_packed()[:-6]), "damaged_file"),
    "nested-zip": (with_good(Raw(b"a/9.zip", GOOD)), "nested_archive"),
    "nested-zip-as-image": (with_good(Raw(b"a/9.png", GOOD)), "nested_archive"),
    "nested-empty-zip": (with_good(Raw(b"a/9.jpg", pack({}))), "nested_archive"),
    "nested-gzip": (with_good(Raw(b"a/9.tgz", b"\x1f\x8b\x08" + b"x" * 50)), "nested_archive"),
    "nested-gzip-as-image": (
        with_good(Raw(b"a/9.webp", b"\x1f\x8b\x08" + b"x" * 50)),
        "nested_archive",
    ),
    "nested-tar": (
        with_good(Raw(b"a/9.png", bytes(257) + b"ustar" + bytes(250))),
        "nested_archive",
    ),
    "nested-xz": (with_good(Raw(b"a/9.png", b"\xfd7zXZ\0" + bytes(50))), "nested_archive"),
    "nested-rar": (with_good(Raw(b"a/9.png", b"Rar!\x1a\7\0" + bytes(50))), "nested_archive"),
    "nested-seven-zip": (with_good(Raw(b"a/9.png", b"7z\xbc\xaf\x27\x1c")), "nested_archive"),
    "nested-deep": (
        (lambda z: [z := with_good(Raw(b"a/9.zip", z, method=0)) for _ in range(20)][-1])(GOOD),
        "nested_archive",
    ),
}


def cases() -> dict[str, tuple[bytes, str]]:
    """Each archive, and its code."""
    return {
        **{f"zip-{name}": (content, "not_an_archive") for name, content in NO_END.items()},
        **{f"zip-{name}": (content, "malformed_archive") for name, content in MALFORMED.items()},
        **{f"zip-{name}": case for name, case in OTHERS.items()},
    }
