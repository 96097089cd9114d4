"""The directory of a zip archive, read strictly and in constant memory per entry.

Python's own `zipfile` reads the whole directory at once, believes it over the local headers and,
in some releases, lets entries overlap. Here every field is checked against the others (APPNOTE.TXT
6.3.10, sections 4.3.7 to 4.3.16), and whatever two readers could understand differently is refused.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from app.datasets.members import ArchiveError, malformed

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 0xFFFF
END_RECORD_BYTES = _END.size + _MAX_COMMENT  # the most that an end record can take
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF

FLAG_ENCRYPTED, FLAG_DESCRIPTOR, FLAG_STRONG, FLAG_UTF8, FLAG_MASKED = (
    1,
    8,
    1 << 6,
    1 << 11,
    1 << 13,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the archive's directory."""

    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int  # bytes in the archive
    size: int  # bytes once unpacked, as declared
    offset: int  # of the local header
    mode: int  # Unix file mode, or 0

    @property
    def name(self) -> str:
        """The name as text: UTF-8 where it is UTF-8, else the format's old code page."""
        try:
            return self.raw_name.decode("utf-8")
        except UnicodeDecodeError:
            if self.flags & FLAG_UTF8:
                raise malformed("a name isn't the UTF-8 that it claims to be") from None
            return self.raw_name.decode("cp437")

    @property
    def encrypted(self) -> bool:
        """Whether a password is needed, for the data or for the directory."""
        return bool(self.flags & (FLAG_ENCRYPTED | FLAG_STRONG | FLAG_MASKED))


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the list of entries lies, and how many there are."""

    start: int
    end: int
    count: int


def find_directory(file: IO[bytes]) -> Directory:
    """Where the directory is. Raises ArchiveError unless the file ends as a zip archive does."""
    size = file.seek(0, os.SEEK_END)
    tail_start = max(0, size - END_RECORD_BYTES)
    file.seek(tail_start)
    place = end_record(file.read(END_RECORD_BYTES))
    if place is None:
        raise ArchiveError(
            "not_an_archive",
            "The end of the zip archive is missing.",
            "Upload the whole archive.",
        )
    place += tail_start
    file.seek(place)
    _, disk, first_disk, here, count, length, start, _ = _END.unpack(file.read(_END.size))
    end = place
    found = _find_zip64(file, place)
    if found is not None:
        end, wide = found
        for narrow, value, full in (
            (count, wide[1], _FULL16),
            (length, wide[2], _FULL32),
            (start, wide[3], _FULL32),
        ):
            if narrow not in (value, full):
                raise malformed("its two end records disagree")
        here, count, length, start = wide
    if disk or first_disk or here != count:
        raise ArchiveError(
            "multi_part_archive",
            "The archive is one part of several.",
            "Upload one whole .zip file.",
        )
    if start + length != end or count * _CENTRAL.size > length:
        raise malformed("its directory isn't where it is said to be")
    return Directory(start, end, count)


def end_record(tail: bytes) -> int | None:
    """Where the end record begins in the last bytes of a file, or None."""
    place = tail.rfind(b"PK\x05\x06")
    while place >= 0:
        record = tail[place : place + _END.size]
        if len(record) == _END.size:
            comment = _END.unpack(record)[-1]
            if place + _END.size + comment == len(tail):
                return place
        place = tail.rfind(b"PK\x05\x06", 0, place)
    return None


def _find_zip64(file: IO[bytes], end: int) -> tuple[int, tuple[int, int, int, int]] | None:
    if end < _LOCATOR.size:
        return None
    file.seek(end - _LOCATOR.size)
    signature, disk, place, disks = _LOCATOR.unpack(file.read(_LOCATOR.size))
    if signature != b"PK\x06\x07":
        return None
    if disk or disks > 1 or place + _END64.size > end - _LOCATOR.size:
        raise malformed("its zip64 locator points nowhere")
    file.seek(place)
    record = _END64.unpack(file.read(_END64.size))
    if record[0] != b"PK\x06\x06" or place + 12 + record[1] != end - _LOCATOR.size:
        raise malformed("its zip64 end record isn't one")
    return place, (record[6], record[7], record[8], record[9])


def entries(file: IO[bytes], directory: Directory) -> Iterator[Entry]:
    """Every entry of the directory, in its order."""
    place = directory.start
    for _ in range(directory.count):
        file.seek(place)
        fixed = file.read(_CENTRAL.size)
        if len(fixed) < _CENTRAL.size or not fixed.startswith(b"PK\x01\x02"):
            raise malformed("its directory has fewer entries than it says")
        (_, made, _, flags, method, _, _, crc, packed, size, name_length, extra_length) = (
            _CENTRAL.unpack(fixed)[:12]
        )
        comment_length, _, _, attributes, offset = _CENTRAL.unpack(fixed)[12:]
        place += _CENTRAL.size + name_length + extra_length + comment_length
        if place > directory.end:
            raise malformed("an entry reaches beyond the directory")
        name = file.read(name_length)
        extra = file.read(extra_length)
        size, packed, offset = _widen(extra, [size, packed, offset])
        mode = attributes >> 16 if made >> 8 in (3, 19) or attributes >> 28 else 0
        yield Entry(name, flags, method, crc, packed, size, offset, mode)
    if place != directory.end:
        raise malformed("its directory has more bytes than entries")


def _widen(extra: bytes, values: list[int]) -> list[int]:
    """Replace the full 32-bit fields by those of the zip64 extra field."""
    if _FULL32 not in values:
        return values
    wide = _extra_field(extra, 1)
    place = 0
    widened = []
    for value in values:
        if value == _FULL32:
            if place + 8 > len(wide):
                raise malformed("a zip64 size is missing")
            (value,) = struct.unpack_from("<Q", wide, place)
            place += 8
        widened.append(value)
    return widened


def _extra_field(extra: bytes, wanted: int) -> bytes:
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, place)
        if kind == wanted:
            return extra[place + 4 : place + 4 + length]
        place += 4 + length
    return b""


def data_start(file: IO[bytes], entry: Entry, directory: Directory) -> int:
    """Where an entry's bytes begin. Raises ArchiveError when its local header says otherwise."""
    if entry.offset >= directory.start:
        raise malformed("an entry lies behind all files")
    file.seek(entry.offset)
    fixed = file.read(_LOCAL.size)
    if len(fixed) < _LOCAL.size or not fixed.startswith(b"PK\x03\x04"):
        raise malformed("an entry has no header of its own")
    fields: tuple[int, ...] = _LOCAL.unpack(fixed)[2:]
    flags, method, _, _, crc, packed, size, name_length, extra_length = fields
    name = file.read(name_length)
    size, packed = _widen(file.read(extra_length), [size, packed])
    if name != entry.raw_name:
        raise malformed("an entry has two names")
    if method != entry.method or (flags ^ entry.flags) & FLAG_ENCRYPTED:
        raise malformed("an entry is packed in two ways")
    declared = ((crc, entry.crc), (packed, entry.packed), (size, entry.size))
    later = bool(flags & FLAG_DESCRIPTOR)  # the values follow the data; here they may be zero
    if any(local != central and not (later and local == 0) for local, central in declared):
        raise malformed("an entry has two sizes")
    return entry.offset + _LOCAL.size + name_length + extra_length
