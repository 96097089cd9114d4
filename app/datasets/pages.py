"""What the pages of a Parquet file unpack to, as they say: readers believe them over the footer.

Only the sizes in the page headers are read (parquet.thrift, PageHeader, in Thrift's compact
protocol), so that nothing is unpacked for it.
"""

from __future__ import annotations

import struct
from typing import IO

WINDOW, MAX_HEADER = 1 << 12, 1 << 24
UNPACKED, PACKED = 2, 3  # fields of a PageHeader
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, 12
MAX_DEPTH = 8


class PageError(ValueError):
    """A page header can't be read."""


def unpacked_bytes(file: IO[bytes], start: int, length: int) -> int:
    """What the pages between `start` and `start + length` unpack to. Raises PageError."""
    place, total = start, 0
    while place < start + length:
        sizes, header = _header(file, place)
        unpacked, packed = sizes.get(UNPACKED, -1), sizes.get(PACKED, -1)
        if unpacked < 0 or packed < 0:
            raise PageError("a page has no size")
        total += unpacked
        place += header + packed
    return total


def _header(file: IO[bytes], place: int) -> tuple[dict[int, int], int]:
    """The integers of the page header at `place` by field, and its length."""
    window = WINDOW
    while True:
        file.seek(place)
        data = file.read(window)
        try:
            reader = _Reader(data)
            return reader.fields(), reader.place
        except (IndexError, struct.error):
            if len(data) < window or window >= MAX_HEADER:
                raise PageError("a page header is cut") from None
            window *= 16


class _Reader:
    """Thrift's compact protocol, as far as headers need it. Raises IndexError at the data's end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def fields(self, depth: int = 0) -> dict[int, int]:
        """The integer fields of a struct; the others are passed over."""
        if depth > MAX_DEPTH:
            raise PageError("a page header is too deep")
        found: dict[int, int] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else _signed(self._number())
            if head & 15 in _INTEGERS:
                found[number] = _signed(self._number())
            elif head & 15 not in _BOOLEANS:
                self._pass_over(head & 15, depth)
        return found

    def _pass_over(self, kind: int, depth: int) -> None:
        if kind == _BYTE:
            self.place += 1
        elif kind == _DOUBLE:
            self.place += 8
        elif kind == _BINARY:
            length = self._number()
            self.place += length
        elif kind == _STRUCT:
            self.fields(depth + 1)
        else:
            raise PageError("a page header has a field that page headers don't have")

    def _number(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise PageError("a number is too long")
        return value | byte << shift

    def _byte(self) -> int:
        self.place += 1
        return self._data[self.place - 1]


def _signed(number: int) -> int:
    return number >> 1 ^ -(number & 1)
