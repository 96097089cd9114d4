"""Tar archives (POSIX.1-2001 pax, and GNU's long names), walked header by header.

Python's own `tarfile` reads a long name of any declared length into memory and follows what it
can't make sense of; here it only decodes single headers, and every length is checked first.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from app.datasets import names
from app.datasets.findings import Findings
from app.datasets.members import (
    Archive,
    ArchiveError,
    EntryKind,
    Member,
    acceptable,
    check_count,
    check_unpacked,
    malformed,
)
from app.datasets.options import CheckOptions

BLOCK = tarfile.BLOCKSIZE
CHUNK = 1 << 16
MAX_EMPTY = 1000  # gzip files with nothing in them, one behind the other
MAX_EXTENSION = 1 << 16  # bytes of a pax header or a long name
_RECORD = re.compile(rb"(\d{1,6}) ([^=\0]+)=")
_KINDS: dict[bytes, EntryKind] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.DIRTYPE: "folder",
    tarfile.LNKTYPE: "link",
    tarfile.SYMTYPE: "link",
}
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}


@dataclass
class _Header:
    """One entry: what its header says, corrected by the extensions before it."""

    name: str
    kind: EntryKind
    size: int
    start: int


@dataclass
class _Extensions:
    """What the next header is told by the ones before it."""

    values: dict[str, str] = field(default_factory=dict)

    def apply(self, info: tarfile.TarInfo, start: int) -> _Header:
        """The entry of a header block, whose data begins at `start`."""
        kind = _KINDS.get(info.type, "special")
        if any(key.startswith("GNU.sparse") for key in self.values):
            kind = "special"
        size = info.size
        if "size" in self.values:
            if not re.fullmatch(r"[0-9]{1,18}", self.values["size"]):
                raise malformed("a size isn't a number")
            size = int(self.values["size"])
        return _Header(_text(self.values.get("path", info.name)), kind, size, start)


def listed(path: Path, options: CheckOptions, findings: Findings) -> Archive:
    """What may be read of a tar archive. Raises ArchiveError when nothing may."""
    archive = Archive(path)
    total = 0
    for count, header in enumerate(_headers(path, options), start=1):
        check_count(count, options)
        if not acceptable(header.name, header.kind, findings):
            continue
        parts = names.parts_of(header.name)
        if header.kind == "folder":
            archive.folders.add(parts)
            continue
        total += header.size
        check_unpacked(total, None, options)
        archive.members.append(Member(header.name, parts, header.size, header.start, header.size))
    archive.members.sort(key=lambda member: member.parts)
    return archive


def _headers(path: Path, options: CheckOptions) -> Iterator[_Header]:
    """Every entry of the archive, in its order."""
    size = path.stat().st_size
    place, extensions, blocks = 0, _Extensions(), 0
    with path.open("rb") as file:
        while True:
            file.seek(place)
            block = file.read(BLOCK)
            if len(block) < BLOCK:
                raise _cut()
            if not block.strip(b"\0"):
                break
            check_count(blocks := blocks + 1, options)
            info = _decode(block)
            place += BLOCK
            if info.type in _PAX or info.type in _LONG or info.type == tarfile.XGLTYPE:
                _extend(extensions, info, _extension(file, info.size))
                place += _padded(info.size)
                continue
            header = extensions.apply(info, place)
            extensions = _Extensions()
            # Folders and links have no data, whatever their size says.
            place += _padded(header.size) if header.kind in ("file", "special") else 0
            if place > size:
                raise _cut()
            yield header
        if extensions.values:
            raise malformed("it ends with a name that is nobody's")
        _check_padding(file)


def _decode(block: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise malformed("an entry's header is broken") from error
    if info.size < 0:
        raise malformed("an entry has a negative size")
    return info


def _extension(file: IO[bytes], size: int) -> bytes:
    if size > MAX_EXTENSION:
        raise malformed("a name is longer than any name can be")
    data = file.read(size)
    if len(data) < size:
        raise _cut()
    return data


def _extend(extensions: _Extensions, info: tarfile.TarInfo, data: bytes) -> None:
    """Note what an extension header says of the next entry."""
    if info.type in _LONG:
        extensions.values[_LONG[info.type]] = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        return
    found = dict(_records(data))
    if info.type == tarfile.XGLTYPE:
        if found.keys() & {"path", "size", "linkpath"}:
            raise malformed("a header gives every file the same name or size")
        return
    extensions.values.update(found)


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """The records of a pax header: b"LENGTH KEY=VALUE\\n", each with its own length in front."""
    place = 0
    while place < len(data):
        start = _RECORD.match(data, place)
        end = place + int(start[1]) if start else 0
        if start is None or not start.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise malformed("a pax header is broken")
        key = start[2].decode("utf-8", "surrogateescape")
        yield key, data[start.end() : end - 1].decode("utf-8", "surrogateescape")
        place = end


def _text(name: str) -> str:
    """A name that isn't UTF-8 is taken for Latin-1, as old programs wrote it."""
    raw = name.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _check_padding(file: IO[bytes]) -> None:
    """Behind the end there is nothing but zeros: what else lies there, another reader may see."""
    while chunk := file.read(CHUNK):
        if chunk.strip(b"\0"):
            raise malformed("it has data behind its end")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def unzip(source: Path, target: Path, options: CheckOptions) -> None:
    """Write what a gzip file (RFC 1952) holds to `target`.

    Raises ArchiveError when it's damaged or unpacks to too much; that is seen while it is counted.
    """
    gunzip = _Gunzip()
    packed = unpacked = 0
    with source.open("rb") as file, target.open("xb") as out:
        while data := file.read(CHUNK):
            packed += len(data)
            for chunk in gunzip(data):
                unpacked += len(chunk)
                check_unpacked(unpacked, packed, options)
                out.write(chunk)
    if not gunzip.ended:
        raise _damaged()


class _Gunzip:
    """Decompresses gzip files that follow one another, with or without zeros behind the last."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)
        self._unpacked = self._empty = 0

    @property
    def ended(self) -> bool:
        """Whether the data so far is whole."""
        return self._inflate.eof

    def __call__(self, data: bytes) -> Iterator[bytes]:
        """What `data` adds, in chunks of bounded size. Raises ArchiveError for damaged data."""
        while data:
            if self.ended:
                if not data.strip(b"\0"):
                    return
                self._begin()
            try:
                chunk = self._inflate.decompress(data, CHUNK)
                while len(chunk) == CHUNK:
                    self._unpacked += CHUNK
                    yield chunk
                    chunk = self._inflate.decompress(self._inflate.unconsumed_tail, CHUNK)
            except zlib.error as error:
                raise _damaged() from error
            self._unpacked += len(chunk)
            yield chunk
            data = self._inflate.unused_data

    def _begin(self) -> None:
        """Go on with the next file; only work is to be had from very many empty ones."""
        self._empty += not self._unpacked
        if self._empty > MAX_EMPTY:
            raise _damaged()
        self._inflate, self._unpacked = zlib.decompressobj(wbits=31), 0


def _damaged() -> ArchiveError:
    return ArchiveError(
        "damaged_file",
        "The archive is damaged, or its end is missing: it can't be decompressed.",
        "Make the archive again, and upload it whole.",
    )


def _cut() -> ArchiveError:
    return ArchiveError(
        "not_an_archive",
        "The end of the tar archive is missing.",
        "Upload the whole archive.",
    )
