"""Odd uploads that are rightly taken: what is strange about them reaches nobody."""

from __future__ import annotations

import gzip
import struct
import zlib

from tests.app.datasets import tarballs
from tests.app.datasets.corpus.pictures import (
    LINES,
    chunk,
    header,
    jpeg,
    noise,
    png_of,
    png_with,
    segment,
    segments,
)
from tests.app.datasets.tarballs import zipped
from tests.app.datasets.zips import Raw, build, good_files, pack, png, with_good

FILES = good_files()
JPEG = noise("JPEG")


def again(data: bytes, marker: int, count: int) -> bytes:
    """A JPEG with one of its segments many times over."""
    return b"".join(raw * (count if m == marker else 1) for m, raw in segments(data))


IMAGES = {
    "png-then-zip": noise("PNG") + pack(FILES),
    "png-then-text": noise("PNG") + b"<script>alert(1)</script>",
    "png-script-in-text": png_with(chunk(b"tEXt", b"Comment\0<script>alert(1)</script>")),
    "png-unknown-chunk": png_with(chunk(b"abCd", b"x" * 5000)),
    "png-more-data-than-lines": png_of(
        header(), chunk(b"IDAT", zlib.compress(zlib.decompress(LINES) * 9)), chunk(b"IEND")
    ),
    "png-without-end": png_of(header(), chunk(b"IDAT", LINES)),
    "png-data-in-many-chunks": png_of(
        header(), *(chunk(b"IDAT", LINES[n : n + 1]) for n in range(len(LINES))), chunk(b"IEND")
    ),
    "jpeg-then-zip": JPEG + pack(FILES),
    "jpeg-zip-in-comment": jpeg({0xE0: segment(0xFE, pack(FILES))}),
    "jpeg-script-in-comment": jpeg({0xE0: segment(0xFE, b"<?php system($_GET['x']); ?>")}),
    "jpeg-many-comments": again(jpeg({0xE0: segment(0xFE, b"x")}), 0xFE, 2000),
    "jpeg-profile-garbage": jpeg({0xE0: segment(0xE2, b"ICC_PROFILE\0\1\1garbage")}),
    "jpeg-profile-of-255": jpeg({0xE0: segment(0xE2, b"ICC_PROFILE\0\1\xffgarbage")}),
    "jpeg-exif-loop": jpeg(
        {0xE0: segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08" + b"\0\0" + struct.pack(">L", 8))}
    ),
    "jpeg-exif-count": jpeg(
        {0xE0: segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3" + b"\xff" * 8)}
    ),
    "jpeg-exif-many": jpeg(
        {
            0xE0: segment(
                0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\1\x0e\0\2\0\0\0\1ab\0\0" * 5000
            )
        }
    ),
    "jpeg-segment-without-length": jpeg({0xE0: segment(0xE0, b"", size=0)}),
    "webp-then-text": noise("WEBP") + b"text",
}


def uploads() -> dict[str, bytes]:
    """Each with at least six images, two classes, and no error."""
    archives = {
        "comment": build(
            [Raw(n.encode(), d) for n, d in FILES.items()], comment=b"PK\x05\x06 by hand"
        ),
        "data-behind-the-stream": with_good(
            Raw(b"a/9.png", png(9), packed=Raw(b"", png(9)).bytes_packed() + b"behind")
        ),
        "unicode-path-field": with_good(
            Raw(
                b"a/9.png",
                png(9),
                central_extra=struct.pack("<2HBL", 0x7075, 12, 1, 0) + b"../evil",
            )
        ),
        "descriptor-lies": with_good(
            Raw(
                b"a/9.png",
                png(9),
                flags=8 | 1 << 11,
                local={"crc": 0, "size": 0, "packed": 0},
                behind=b"PK\x07\x08" + b"\xff" * 12,
            )
        ),
        "gap": build(
            [Raw(n.encode(), d, behind=b"hidden") for n, d in FILES.items()],
        ),
        "joiner-in-name": with_good(Raw("a/\u0645\u06cc\u200c\u062e.png".encode(), png(9))),
        "gzip-with-name": _named(tarballs.pack(FILES)),
        "gzip-empty-members": zipped(b"") * 5 + zipped(tarballs.pack(FILES)) + zipped(b""),
        "tar-folder-with-size": tarballs.build(
            [
                tarballs.Entry("a", type=b"5", size=512),
                *(tarballs.Entry(name, data) for name, data in FILES.items()),
            ]
        ),
    }
    images = {
        f"image-{name}": with_good(Raw(b"a/9.png", data, method=0)) for name, data in IMAGES.items()
    }
    return {**archives, **images}


def _named(content: bytes) -> bytes:
    """The same as .gz that says a name which climbs."""
    packed = gzip.compress(content, mtime=0)
    return packed[:3] + b"\x08" + packed[4:10] + b"../../etc/passwd\0" + packed[10:]
