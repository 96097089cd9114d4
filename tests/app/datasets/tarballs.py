"""Tar archives made by hand."""

from __future__ import annotations

import gzip
import io
import tarfile
from dataclasses import dataclass

PAX, GNU = tarfile.PAX_FORMAT, tarfile.GNU_FORMAT


@dataclass
class Entry:
    """One entry; `size` is what its header says, where that isn't so."""

    name: str
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    size: int | None = None
    link: str = ""
    prefix: bytes = b""  # blocks before its header


def block(entry: Entry) -> bytes:
    """A header block in the old format, which cuts no corners and no names."""
    info = tarfile.TarInfo(entry.name)
    info.type, info.linkname = entry.type, entry.link
    info.size = len(entry.data) if entry.size is None else entry.size
    return info.tobuf(tarfile.GNU_FORMAT)


def build(entries: list[Entry], end: bytes = bytes(1024)) -> bytes:
    """An archive of `entries`, with that end."""
    body = bytearray()
    for entry in entries:
        body += entry.prefix + block(entry) + padded(entry.data)
    return bytes(body) + end


def padded(data: bytes) -> bytes:
    """`data` in whole blocks."""
    return data + bytes(-len(data) % 512)


def pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """The blocks of a pax header with these records."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, len(records)
    return info.tobuf(tarfile.USTAR_FORMAT) + padded(records)


def pack(files: dict[str, bytes], style: int = tarfile.PAX_FORMAT) -> bytes:
    """An ordinary archive; a name that ends with a slash is a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zipped(content: bytes) -> bytes:
    """The same as .gz."""
    return gzip.compress(content, mtime=0)
