"""All files of a student as one zip archive, without writing one: same files, same bytes.

The files are stored unpacked behind complete headers, so that every byte's place is known before
any is read, and any range can be served.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from app.errors import ConflictError
from app.storage import Storage
from app.students.service import StoredFile, check_stored

LIMIT = 2**32 - 1  # where the plain zip format ends
_DATE = (1 << 5) | 1  # 1 January 1980, the earliest day that the format knows
_VERSION, _UNIX, _UTF8, _MODE = 20, 3 << 8, 1 << 11, 0o100644 << 16


@dataclass(frozen=True)
class FileSlice:
    """A stored file, in its place in the archive."""

    key: str
    size: int


@dataclass(frozen=True)
class Archive:
    """An archive in pieces: bytes, and stored files."""

    storage: Storage
    pieces: list[bytes | FileSlice]
    length: int
    etag: str

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to, and without, `stop`."""
        for piece in self.pieces:
            size = len(piece) if isinstance(piece, bytes) else piece.size
            low, high = max(start, 0), min(stop, size)
            if low < high:
                if isinstance(piece, bytes):
                    yield piece[low:high]
                else:
                    yield from self.storage.read(piece.key, low, high)
            start, stop = start - size, stop - size


def archive_of(files: list[StoredFile], storage: Storage) -> Archive:
    """The archive of these files.

    Raises ConflictError when it would be too large for a zip, and DamagedFileError.
    """
    if sum(file.bytes + 1024 for file in files) > LIMIT:
        raise ConflictError("The files are too large for one archive. Download them one by one.")
    pieces: list[bytes | FileSlice] = []
    directory = b""
    place = 0
    for file in files:
        check_stored(storage, file)
        name = file.name.encode()
        fields = (_UTF8, 0, 0, _DATE, file.crc32, file.bytes, file.bytes, len(name), 0)
        local = struct.pack("<4s5H3L2H", b"PK\x03\x04", _VERSION, *fields) + name
        directory += struct.pack(
            "<4s6H3L5H2L",
            *(b"PK\x01\x02", _UNIX | _VERSION, _VERSION, *fields),
            *(0, 0, 0, _MODE, place),
        )
        directory += name
        pieces += [local, FileSlice(file.key, file.bytes)]
        place += len(local) + file.bytes
    count, size = len(files), len(directory)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, size, place, 0)
    pieces.append(directory + end)
    length = place + size + len(end)
    return Archive(storage, pieces, length, f'"{_identity(files)}"')


def _identity(files: list[StoredFile]) -> str:
    lines = "".join(f"{file.name}\0{file.bytes}\0{file.sha256}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()
