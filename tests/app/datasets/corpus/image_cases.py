"""Images that are broken, lie, or are something else; each has to be refused."""

from __future__ import annotations

import gzip
import struct
import zlib

from tests.app.datasets.corpus.pictures import (
    LINES,
    body,
    chunk,
    frame,
    header,
    jpeg,
    noise,
    part,
    png_of,
    png_with,
    riff,
    segment,
    segments,
)
from tests.app.datasets.zips import good_files, pack, picture, png

MIB = 1 << 20
MEBIBYTE = zlib.compress(bytes(MIB - 9))
ZEROS = zlib.compress(bytes(96 * MIB))
IDAT, IEND = chunk(b"IDAT", LINES), chunk(b"IEND")
PIXELS = zlib.decompress(LINES)
PNG, JPEG = noise("PNG"), noise("JPEG")
PROGRESSIVE = noise("JPEG", progressive=True)
LOSSY, LOSSLESS = noise("WEBP"), noise("WEBP", lossless=True)
VP8, VP8L = body(LOSSY), body(LOSSLESS)
PALETTE = chunk(b"PLTE", bytes(range(48)))
HEADER = dict(segments(JPEG))


def idat(data: bytes, *, first: bytes = header()) -> bytes:
    """A PNG with that data."""
    return png_of(first, chunk(b"IDAT", data), IEND)


def large(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that says how large it is and holds next to nothing."""
    return idat(zlib.compress(bytes(100)), first=header(width, height, depth, colour))


def bomb(kind: bytes, before: bytes) -> bytes:
    """A PNG with a chunk that unpacks to a lot."""
    return png_with(chunk(kind, before + ZEROS))


def canvas(width: int, height: int, flags: int = 0) -> bytes:
    """A WebP's VP8X chunk."""
    sides = struct.pack("<L", width - 1)[:3] + struct.pack("<L", height - 1)[:3]
    return part(b"VP8X", bytes([flags, 0, 0, 0]) + sides)


def scans(count: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    found = segments(PROGRESSIVE)
    raw = [(m, frame(0xC2, size=size) if m == 0xC2 else data) for m, data in found]
    last = [data for marker, data in raw if marker == 0xDA][-1]
    return b"".join(data for _, data in raw[:-1]) + last * count + b"\xff\xd9"


def png_cut() -> dict[str, bytes]:
    """A PNG that ends too early."""
    return {f"png-cut-at-{place}": PNG[:place] for place in (8, 12, 20, 33, 40, 45, 300)} | {
        "png-cut-in-the-middle": PNG[: len(PNG) // 2]
    }


def jpeg_cut() -> dict[str, bytes]:
    """A JPEG that ends too early, at every segment."""
    cut, place = {}, 0
    for number, (marker, data) in enumerate(segments(JPEG)[:-1]):
        cut[f"jpeg-cut-in-segment-{number}-{marker:02x}"] = JPEG[: place + len(data) // 2 + 2]
        place += len(data)
    return cut | {"jpeg-cut-late": JPEG[:-200], "jpeg-cut-progressive": PROGRESSIVE[:-300]}


def webp_cut() -> dict[str, bytes]:
    """A WebP that ends too early."""
    return {
        f"webp-{name}-cut-at-{place}": data[:place]
        for name, data in (("lossy", LOSSY), ("lossless", LOSSLESS))
        for place in (12, 16, 20, 25, 40, len(data) // 2, len(data) - 40)
    }


PNGS = {
    "no-header": png_of(IDAT, IEND),
    "empty": png_of(IEND),
    "header-short": png_of(chunk(b"IHDR", bytes(12)), IDAT, IEND),
    "header-checksum": png_of(header()[:-4] + b"abcd", IDAT, IEND),
    "no-width": png_of(header(0, 8), IDAT, IEND),
    "no-height": png_of(header(8, 0), IDAT, IEND),
    "depth-3": png_of(header(8, 8, 3), IDAT, IEND),
    "depth-32": png_of(header(8, 8, 32), IDAT, IEND),
    "colour-1": png_of(header(8, 8, 8, 1), IDAT, IEND),
    "colour-7": png_of(header(8, 8, 8, 7), IDAT, IEND),
    "compression-1": png_of(header(8, 8, 8, 2, 1), IDAT, IEND),
    "filter-1": png_of(header(8, 8, 8, 2, 0, 1), IDAT, IEND),
    "wider-than-its-data": png_of(header(16, 8), IDAT, IEND),
    "higher-than-its-data": png_of(header(8, 16), IDAT, IEND),
    "deeper-than-its-data": png_of(header(8, 8, 16), IDAT, IEND),
    "interlaced-unlike-its-data": png_of(header(64, 64, 8, 2, 0, 0, 1), IDAT, IEND),
    "no-data": png_of(header(), IEND),
    "data-empty": idat(b""),
    "data-checksum": png_of(header(), IDAT[:-4] + b"abcd", IEND),
    "data-renamed": PNG.replace(b"IDAT", b"IDAX"),
    "data-not-zlib": idat(b"hello" * 50),
    "data-gzip": idat(gzip.compress(PIXELS)),
    "data-raw-deflate": idat(LINES[2:-4]),
    "data-reserved-block": idat(b"\x78\x9c\x07" + bytes(50)),
    "data-dictionary": idat(b"\x78\xbb" + bytes(50)),
    "data-short": idat(zlib.compress(PIXELS[:-30])),
    "data-cut": idat(LINES[: len(LINES) // 2]),
    "filter-unknown": idat(zlib.compress(b"\x09" + PIXELS[1:])),
    "chunk-beyond-the-end": png_of(header(), chunk(b"IDAT", LINES, size=10**6)),
    "chunk-negative": png_of(header(), chunk(b"IDAT", LINES, size=2**32 - 1), IEND),
    "chunk-named-in-zeros": png_of(header(), chunk(bytes(4), b"abc"), IDAT, IEND),
    "chunk-checksum-critical": png_of(header(), chunk(b"ABCD", b"x", crc=0), IDAT, IEND),
    "two-headers-other-size": png_of(header(), header(80, 80), IDAT, IEND),
    "text-bomb": bomb(b"zTXt", b"Comment\0\0"),
    "text-bomb-international": bomb(b"iTXt", b"Comment\0\1\0\0\0"),
    "profile-bomb": bomb(b"iCCP", b"profile\0\0"),
    "text-bombs": png_with(*(chunk(b"zTXt", b"%d\0\0" % n + MEBIBYTE) for n in range(80))),
    "gamma-short": png_with(chunk(b"gAMA", b"ab")),
    "physical-short": png_with(chunk(b"pHYs", b"abc")),
    "chromaticity-short": png_with(chunk(b"cHRM", b"abc")),
    "transparency-short": png_with(chunk(b"tRNS", b"a")),
    "intent-empty": png_with(chunk(b"sRGB")),
    "profile-unknown-method": png_with(chunk(b"iCCP", b"x\0\x07abc")),
    "profile-empty": png_with(chunk(b"iCCP")),
    "text-unknown-method": png_with(chunk(b"zTXt", b"x\0\x07abc")),
    "frames-short": png_with(chunk(b"acTL", b"abc")),
    "frame-short": png_with(chunk(b"acTL", struct.pack(">2L", 2, 0)), chunk(b"fcTL", b"abc")),
    "frame-outside": png_with(
        chunk(b"acTL", struct.pack(">2L", 2, 0)),
        chunk(b"fcTL", struct.pack(">5L2H2B", 0, 80, 80, 4, 4, 1, 1, 0, 0)),
    ),
    "frame-out-of-order": png_with(
        chunk(b"acTL", struct.pack(">2L", 2, 0)),
        chunk(b"fcTL", struct.pack(">5L2H2B", 7, 8, 8, 0, 0, 1, 1, 0, 0)),
    ),
    "palette-without-colours": png_of(header(8, 8, 8, 3), chunk(b"PLTE"), IDAT, IEND),
    "palette-missing": png_of(header(8, 8, 8, 3), chunk(b"IDAT", zlib.compress(bytes(72))), IEND),
}

SIZES = {
    "png-huge": large(100_000, 100_000),
    "png-largest": large(2**31 - 1, 2**31 - 1),
    "png-unsigned": large(2**32 - 1, 2**32 - 1),
    "png-wide": large(2**31 - 1, 1),
    "png-high": large(1, 2**31 - 1),
    "png-just-over": large(10_001, 10_000),
    "png-huge-palette": large(60_000, 60_000, 1, 3),
    "png-huge-grey": large(60_000, 60_000, 1, 0),
    "jpeg-largest": jpeg({0xC0: frame(size=(65_500, 65_500))}),
    "jpeg-progressive-largest": jpeg({0xC2: frame(0xC2, size=(65_500, 65_500))}, PROGRESSIVE),
    "jpeg-scans": scans(2000),
    "jpeg-scans-of-a-large-image": scans(60, (9000, 9000)),
    "webp-lossless-largest": riff(part(b"VP8L", b"\x2f\xff\xff\xff\x0f" + VP8L[5:])),
}

TOO_GOOD = {
    "png-lines-missing": idat(zlib.compress(bytes(40_000)), first=header(9000, 9000)),
    "png-one-colour": idat(ZEROS, first=header(9000, 9000, 8, 0)),
    "jpeg-data-missing": jpeg({0xC0: frame(size=(9000, 9000))}),
    "webp-one-colour": picture("WEBP", 1, (4800, 4800)),
}

JPEGS = {
    "start-and-end": b"\xff\xd8\xff\xd9",
    "starts-only": b"\xff\xd8" * 500,
    "fill-only": b"\xff\xd8" + b"\xff" * 5000,
    "no-frame": jpeg({0xC0: b""}),
    "no-scan": jpeg({0xDA: b""}),
    "two-frames": jpeg({0xC0: frame() + frame()}),
    "no-width": jpeg({0xC0: frame(size=(64, 0))}),
    "no-height": jpeg({0xC0: frame(size=(0, 64))}),
    "twelve-bits": jpeg({0xC0: frame(0xC1, depth=12)}),
    "sixteen-bits": jpeg({0xC0: frame(depth=16)}),
    "no-bits": jpeg({0xC0: frame(depth=0)}),
    "lossless": jpeg({0xC0: frame(0xC3)}),
    "differential": jpeg({0xC0: frame(0xC5)}),
    "differential-progressive": jpeg({0xC0: frame(0xC6)}),
    "reserved-frame": jpeg({0xC0: frame(0xC8)}),
    "arithmetic-lossless": jpeg({0xC0: frame(0xCB)}),
    "hierarchical": jpeg({0xC0: segment(0xDE, HEADER[0xC0][4:])}),
    "no-parts": jpeg({0xC0: frame(parts=())}),
    "two-parts": jpeg({0xC0: frame(parts=((1, 0x22, 0), (2, 0x11, 1)))}),
    "five-parts": jpeg({0xC0: frame(parts=tuple((n, 0x11, 0) for n in range(5)))}),
    "parts-said-255": jpeg({0xC0: frame(count=255)}),
    "frame-short": jpeg({0xC0: segment(0xC0, b"\x08\0\x40")}),
    "sampling-zero": jpeg({0xC0: frame(parts=((1, 0, 0), (2, 0x11, 1), (3, 0x11, 1)))}),
    "sampling-five": jpeg({0xC0: frame(parts=((1, 0x55, 0), (2, 0x11, 1), (3, 0x11, 1)))}),
    "sampling-too-much": jpeg({0xC0: frame(parts=((1, 0x44, 0), (2, 0x44, 1), (3, 0x44, 1)))}),
    "table-unknown": jpeg({0xC0: frame(parts=((1, 0x22, 9), (2, 0x11, 1), (3, 0x11, 1)))}),
    "no-quantisation": jpeg({0xDB: b""}),
    "quantisation-cut": jpeg({0xDB: segment(0xDB, b"\0" + bytes(20))}),
    "quantisation-number": jpeg({0xDB: segment(0xDB, b"\x0f" + bytes(64))}),
    "codes-overfull": jpeg({0xC4: segment(0xC4, b"\0" + b"\xff" * 16 + bytes(200))}),
    "codes-cut": jpeg({0xC4: segment(0xC4, b"\0" + b"\1" * 5)}),
    "codes-number": jpeg({0xC4: segment(0xC4, b"\x2f" + bytes(16))}),
    "codes-too-many": jpeg({0xC4: segment(0xC4, b"\0" + b"\x7f" * 16)}),
    "scan-of-strangers": jpeg({0xDA: segment(0xDA, b"\1\x77\0\0\x3f\0") + b"\0" * 90}),
    "scan-of-nothing": jpeg({0xDA: segment(0xDA, b"\0\0\x3f\0") + b"\0" * 90}),
    "scan-short": jpeg({0xDA: segment(0xDA, b"\3")}),
    "scan-length": jpeg({0xDA: segment(0xDA, HEADER[0xDA][4:14], size=60_000)}),
    "scan-empty": jpeg({0xDA: HEADER[0xDA][:14], 0xD9: b""}),
    "restart-short": jpeg({0xC0: segment(0xDD, b"\0") + HEADER[0xC0]}),
    "segment-beyond-the-end": jpeg({0xE0: segment(0xE0, b"JFIF\0", size=65_000)}),
    "cut-then-ended": JPEG[:400] + b"\xff\xd9",
    "thumbnail-only": b"\xff\xd8" + segment(0xE1, b"Exif\0\0" + JPEG) + b"\xff\xd9",
}

WEBPS = {
    "canvas-largest": riff(canvas(2**14, 2**14), part(b"VP8 ", VP8)),
    "header-only": riff(),
    "length-none": LOSSY[:4] + bytes(4) + LOSSY[8:],
    "length-short": LOSSY[:4] + b"\x10\0\0\0" + LOSSY[8:],
    "length-long": LOSSY[:4] + b"\xff\xff\xff\x7f" + LOSSY[8:],
    "length-negative": LOSSY[:4] + b"\xff\xff\xff\xff" + LOSSY[8:],
    "chunk-long": riff(part(b"VP8 ", VP8, size=len(VP8) + 5000)),
    "chunk-negative": riff(part(b"VP8 ", VP8, size=2**32 - 1)),
    "chunk-none": riff(part(b"VP8 ", VP8, size=0)),
    "chunk-unknown": riff(part(b"VP9 ", VP8)),
    "chunk-garbage": riff(part(b"VP8 ", b"garbage" * 50)),
    "lossless-as-lossy": riff(part(b"VP8 ", VP8L)),
    "lossy-as-lossless": riff(part(b"VP8L", VP8)),
    "start-code": riff(part(b"VP8 ", VP8[:3] + b"abc" + VP8[6:])),
    "not-a-key-frame": riff(part(b"VP8 ", bytes([VP8[0] | 1]) + VP8[1:])),
    "hidden-frame": riff(part(b"VP8 ", bytes([VP8[0] & ~16]) + VP8[1:])),
    "version-7": riff(part(b"VP8 ", bytes([VP8[0] | 14]) + VP8[1:])),
    "partition-long": riff(part(b"VP8 ", bytes([VP8[0] | 0xE0, 0xFF, 0xFF]) + VP8[3:])),
    "no-width": riff(part(b"VP8 ", VP8[:6] + b"\0\0" + VP8[8:])),
    "no-height": riff(part(b"VP8 ", VP8[:8] + b"\0\0" + VP8[10:])),
    "lossless-signature": riff(part(b"VP8L", b"\x2e" + VP8L[1:])),
    "lossless-version": riff(part(b"VP8L", VP8L[:4] + bytes([VP8L[4] | 0xE0]) + VP8L[5:])),
    "lossless-empty": riff(part(b"VP8L", VP8L[:5])),
    "lossless-zeros": riff(part(b"VP8L", VP8L[:5] + bytes(40))),
    "lossless-ones": riff(part(b"VP8L", VP8L[:5] + b"\xff" * 40)),
    "canvas-alone": riff(canvas(64, 64)),
    "canvas-else": riff(canvas(640, 640), part(b"VP8 ", VP8)),
    "canvas-short": riff(part(b"VP8X", b"\0\0"), part(b"VP8 ", VP8)),
    "canvas-animated-without-frames": riff(canvas(64, 64, 2), part(b"VP8 ", VP8)),
    "canvas-frame-short": riff(canvas(64, 64, 2), part(b"ANIM", bytes(6)), part(b"ANMF", b"abc")),
    "canvas-frame-outside": riff(
        canvas(64, 64, 2),
        part(b"ANIM", bytes(6)),
        part(b"ANMF", b"\xff\xff\xff\0\0\0\x3f\0\0\x3f\0\0\0\0\0\0" + part(b"VP8 ", VP8)),
    ),
    "alpha-garbage": riff(canvas(64, 64, 16), part(b"ALPH", b"\1garbage"), part(b"VP8 ", VP8)),
    "alpha-short": riff(canvas(64, 64, 16), part(b"ALPH", b""), part(b"VP8 ", VP8)),
}

STRANGERS = {
    "jpeg-garbage-for-marker": jpeg({0xE0: b"garbage" * 20}),
    "text": b"hello",
    "one-byte": b"\xff",
    "zeros": bytes(5000),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "svg-with-entities": b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'aaa'>]><svg>&a;</svg>",
    "html": b"<!doctype html><script>alert(1)</script>",
    "php": b"<?php system($_GET['x']); ?>",
    "shell": b"#!/bin/sh\nrm -rf /\n",
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(x) run\n",
    "gif": picture("GIF", mode="L"),
    "gif-then-jpeg": picture("GIF", mode="L") + JPEG,
    "bmp": picture("BMP"),
    "tiff": picture("TIFF"),
    "tiff-big-endian": b"MM\0*\0\0\0\x08" + bytes(100),
    "icon": picture("ICO"),
    "photoshop": b"8BPS\0\1" + bytes(200),
    "targa": picture("TGA"),
    "portable-pixmap": picture("PPM"),
    "jpeg-2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
    "jpeg-xl": b"\xff\x0a" + bytes(200),
    "heic": b"\0\0\0\x18ftypheic" + bytes(200),
    "avif": b"\0\0\0\x1cftypavif" + bytes(200),
    "mp4": b"\0\0\0\x18ftypmp42" + bytes(200),
    "wave-in-riff": riff(part(b"fmt ", bytes(16)), kind=b"WAVE"),
    "webp-in-other-order": LOSSY[:4][::-1] + LOSSY[4:],
    "elf": b"\x7fELF\2\1\1" + bytes(200),
    "windows-program": b"MZ\x90\0" + bytes(200),
    "java-class": b"\xca\xfe\xba\xbe\0\0\0\x34" + bytes(200),
    "pickle": b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "numpy": b"\x93NUMPY\1\0" + bytes(120),
    "png-in-text-mode": PNG.replace(b"\r\n", b"\n"),
    "png-of-seven-bits": bytes(byte & 127 for byte in PNG),
    "png-base64": b"data:image/png;base64,iVBORw0KGgo=",
    "png-behind-a-byte": b"\n" + PNG,
    "jpeg-behind-zeros": bytes(4) + JPEG,
    "mng": b"\x8aMNG\r\n\x1a\n" + bytes(100),
}

NESTED = {
    "zip": pack(good_files()),
    "zip-then-png": pack({}) + PNG,
    "gzipped-image": gzip.compress(png()),
    "bzip2": b"BZh91AY&SY" + bytes(50),
}


def cases() -> dict[str, tuple[bytes, str]]:
    """Each image, and its code."""
    broken = {
        **{f"png-{name}": data for name, data in PNGS.items()},
        **png_cut(),
        **{f"jpeg-{name}": data for name, data in JPEGS.items()},
        **jpeg_cut(),
        **{f"webp-{name}": data for name, data in WEBPS.items()},
        **webp_cut(),
    }
    return {
        **{name: (data, "unreadable_image") for name, data in broken.items()},
        **{name: (data, "image_too_large") for name, data in SIZES.items()},
        **{name: (data, "compression_ratio") for name, data in TOO_GOOD.items()},
        **{name: (data, "unsupported_image") for name, data in STRANGERS.items()},
        **{f"nested-{name}": (data, "nested_archive") for name, data in NESTED.items()},
    }
