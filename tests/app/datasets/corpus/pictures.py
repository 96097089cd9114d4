"""Images taken apart and put together again: PNG chunks, JPEG segments, WebP chunks."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from typing import Any

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"


@functools.cache
def noise(kind: str, size: int = 64, mode: str = "RGB", **options: Any) -> bytes:
    """An image that doesn't pack well, always the same."""
    grey = Image.frombytes("L", (size, size), bytes(n * n * 31 % 251 for n in range(size * size)))
    buffer = io.BytesIO()
    grey.convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(
    kind: bytes, data: bytes = b"", *, size: int | None = None, crc: int | None = None
) -> bytes:
    """A PNG chunk; its length and checksum are right unless said otherwise."""
    crc = zlib.crc32(kind + data) if crc is None else crc
    length = len(data) if size is None else size
    return struct.pack(">L", length) + kind + data + struct.pack(">L", crc)


def header(width: int = 8, height: int = 8, depth: int = 8, colour: int = 2, *rest: int) -> bytes:
    """An IHDR chunk."""
    last = (*rest, 0, 0, 0)[:3]
    return chunk(b"IHDR", struct.pack(">2L5B", width, height, depth, colour, *last))


LINES = zlib.compress((b"\0" + bytes(range(24))) * 8)  # of 8 x 8 pixels in RGB


def png_of(*chunks: bytes) -> bytes:
    """A PNG of these chunks."""
    return SIGNATURE + b"".join(chunks)


def png_with(*extra: bytes) -> bytes:
    """A good PNG with more chunks before its data."""
    return png_of(header(), *extra, chunk(b"IDAT", LINES), chunk(b"IEND"))


def segment(marker: int, data: bytes = b"", *, size: int | None = None) -> bytes:
    """A JPEG segment; its length is right unless said otherwise."""
    length = len(data) + 2 if size is None else size
    return bytes([0xFF, marker]) + struct.pack(">H", length) + data


def segments(data: bytes) -> list[tuple[int, bytes]]:
    """The segments of a JPEG by marker, as they stand; the scan's data belongs to its SOS."""
    found, place = [(0xD8, data[:2])], 2
    while place < len(data) and data[place + 1] != 0xD9:
        length = struct.unpack(">H", data[place + 2 : place + 4])[0]
        end = place + 2 + length
        if data[place + 1] == 0xDA:
            while end < len(data) and (
                data[end] != 0xFF or data[end + 1] in range(0xD0, 0xD8) or not data[end + 1]
            ):
                end += 1
        found.append((data[place + 1], data[place:end]))
        place = end
    return [*found, (0xD9, data[place:])]


def jpeg(change: dict[int, bytes] | None = None, base: bytes | None = None) -> bytes:
    """A good JPEG, the segments of some markers replaced by these bytes."""
    change = change or {}
    return b"".join(change.get(marker, raw) for marker, raw in segments(base or noise("JPEG")))


def frame(marker: int = 0xC0, depth: int = 8, size: tuple[int, int] = (64, 64),
          parts: tuple[tuple[int, int, int], ...] = ((1, 0x22, 0), (2, 0x11, 1), (3, 0x11, 1)),
          count: int | None = None) -> bytes:  # fmt: skip
    """A JPEG frame header (SOF): size is (height, width), parts are (id, sampling, table)."""
    number = len(parts) if count is None else count
    return segment(marker, struct.pack(">B2HB", depth, *size, number) + bytes(sum(parts, ())))


def riff(*chunks: bytes, size: int | None = None, kind: bytes = b"WEBP") -> bytes:
    """A RIFF file of these chunks."""
    body = kind + b"".join(chunks)
    return b"RIFF" + struct.pack("<L", len(body) if size is None else size) + body


def part(kind: bytes, data: bytes, *, size: int | None = None) -> bytes:
    """A RIFF chunk."""
    return (
        kind + struct.pack("<L", len(data) if size is None else size) + data + bytes(len(data) % 2)
    )


def body(data: bytes) -> bytes:
    """The data of a simple WebP's only chunk."""
    return data[20 : 20 + struct.unpack("<L", data[16:20])[0]]
