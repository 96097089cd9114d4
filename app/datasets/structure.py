"""What decoders forgive and a dataset doesn't: images whose structure shows that they aren't whole,
or that would cost far more to decode than to send. Looked at in constant memory, before decoding.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

STEP = 1 << 16
MAX_RATIO = 500  # decoded bytes for each of the file; only one colour all over has more
RATIO_FLOOR = 64 << 20  # bytes; what decodes to less may be packed as well as it likes
MAX_SCANS = 500
MAX_WORK = 16  # scans of the largest image that is allowed; a usual progressive one has 10
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # fmt: skip


class StructureError(ValueError):
    """An image isn't what its header says."""


def packs_too_well(decoded: int, data: bytes) -> bool:
    """Whether so many decoded bytes can't honestly be in so few."""
    return decoded > RATIO_FLOOR and decoded > MAX_RATIO * len(data)


def too_many_scans(width: int, height: int, data: bytes, max_pixels: int) -> bool:
    """Whether a JPEG goes over its pixels so often that decoding it is an attack."""
    scans = data.count(b"\xff\xda")  # in a scan's own data 0xff is followed by zero
    return scans > MAX_SCANS or scans * width * height > MAX_WORK * max_pixels


def check_png(data: bytes) -> None:
    """Raises StructureError unless a PNG's critical chunks are whole and hold every pixel.

    As the standard has it (PNG, third edition, sections 5, 7 and 10).
    """
    expected, unpacked, inflate = 0, 0, zlib.decompressobj()
    palette = colour = None
    for kind, start, length in _chunks(data):
        if kind == b"IHDR":
            if length != 13 or expected:
                raise StructureError("its header is broken")
            width, height, depth, colour, packing, filtering, lacing = struct.unpack_from(
                ">2L5B", data, start
            )
            if colour not in _CHANNELS or packing or filtering or lacing > 1:
                raise StructureError("its header is broken")
            expected = _raw_bytes(width, height, depth * _CHANNELS[colour], bool(lacing))
        elif kind == b"PLTE":
            palette = length
        elif kind == b"IDAT":
            unpacked = _inflate(inflate, data, start, length, unpacked, expected)
    if not expected or unpacked < expected:
        raise StructureError("some of its data is missing")
    if colour == 3 and not palette:
        raise StructureError("its palette is missing")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and length of the critical chunks, up to the end."""
    place = 8
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, place)
        start, end = place + 8, place + 8 + length
        if end + 4 > len(data):
            raise StructureError("a chunk reaches beyond its end")
        if not kind[0] & 32:  # a capital: critical
            if zlib.crc32(memoryview(data)[place + 4 : end]) != int.from_bytes(data[end : end + 4]):
                raise StructureError("a checksum is wrong")
            yield kind, start, length
        if kind == b"IEND":
            return
        place = end + 4


def _inflate(
    inflate: zlib._Decompress, data: bytes, start: int, length: int, unpacked: int, enough: int
) -> int:
    """Bytes unpacked so far, with a chunk's; nothing is kept, and no more counted than needed."""
    view = memoryview(data)[start : start + length]
    try:
        for place in range(0, length, STEP):
            rest: bytes | memoryview = view[place : place + STEP]
            while unpacked < enough and not inflate.eof:
                got = len(inflate.decompress(rest, STEP))
                unpacked += got
                rest = inflate.unconsumed_tail
                if got < STEP and not rest:
                    break
    except zlib.error as error:
        raise StructureError("its data is damaged") from error
    return unpacked


def _raw_bytes(width: int, height: int, bits: int, laced: bool) -> int:
    """Bytes of the filtered lines of an image, `bits` for each pixel."""
    if not laced:
        return height * (1 + (width * bits + 7) // 8)
    total = 0
    for x, y, across, down in _ADAM7:
        columns, rows = (-(-(width - x) // across), -(-(height - y) // down))
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total
