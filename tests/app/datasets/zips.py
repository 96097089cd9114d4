"""Zip archives made by hand: every field can be told to lie."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


@dataclass
class Raw:
    """One entry; what is None follows from the data."""

    name: bytes
    data: bytes = b""
    method: int = 8
    flags: int = 1 << 11
    mode: int = 0o100644
    system: int = 3
    crc: int | None = None
    size: int | None = None
    packed: bytes | None = None
    packed_size: int | None = None
    offset: int | None = None
    central_extra: bytes = b""
    local: dict[str, int | bytes] = field(default_factory=dict)  # what the local header says else
    local_extra: bytes = b""
    behind: bytes = b""  # follows the data, as a descriptor does

    def bytes_packed(self) -> bytes:
        """What lies in the archive."""
        if self.packed is not None:
            return self.packed
        if self.method != 8:
            return self.data
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        return deflate.compress(self.data) + deflate.flush()


def build(
    entries: list[Raw],
    *,
    prefix: bytes = b"",
    suffix: bytes = b"",
    count: int | None = None,
    total: int | None = None,
    shift: int = 0,
    comment: bytes = b"",
    disk: int = 0,
) -> bytes:
    """An archive of `entries`."""
    body, directory = bytearray(prefix), bytearray()
    for entry in entries:
        packed = entry.bytes_packed()
        crc = zlib.crc32(entry.data) if entry.crc is None else entry.crc
        size = len(entry.data) if entry.size is None else entry.size
        packed_size = len(packed) if entry.packed_size is None else entry.packed_size
        offset = len(body) if entry.offset is None else entry.offset
        said = {
            "name": entry.name,
            "flags": entry.flags,
            "method": entry.method,
            "crc": crc,
            "packed": packed_size,
            "size": size,
            **entry.local,
        }
        if entry.offset is None:
            name = said["name"]
            assert isinstance(name, bytes)
            body += struct.pack(
                "<4s5H3L2H",
                *(LOCAL, 20, said["flags"], said["method"], 0, 33),
                *(said["crc"], said["packed"], said["size"], len(name), len(entry.local_extra)),
            )
            body += name + entry.local_extra + packed + entry.behind
        directory += struct.pack(
            "<4s6H3L5H2L",
            *(CENTRAL, entry.system << 8 | 20, 20, entry.flags, entry.method, 0, 33),
            *(crc, packed_size, size, len(entry.name), len(entry.central_extra)),
            *(0, 0, 0, entry.mode << 16, offset),
        )
        directory += entry.name + entry.central_extra
    count = len(entries) if count is None else count
    end = struct.pack(
        "<4s4H2LH",
        *(END, disk, disk, count, count if total is None else total),
        *(len(directory), len(body) + shift, len(comment)),
    )
    return bytes(body + directory + end + comment + suffix)


def widened(content: bytes, *, locator: int = 0, count: int | None = None) -> bytes:
    """The same archive with a zip64 end, whose locator or count can be told to lie."""
    body, end = content[:-22], content[-22:]
    _, _, _, here, total, length, start, _ = struct.unpack("<4s4H2LH", end)
    total = total if count is None else count
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, total, total, length, start)
    where = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(body) + locator, 1)
    narrow = here if count is not None else 0xFFFF
    plain = struct.pack("<4s4H2LH", END, 0, 0, narrow, narrow, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return body + record + where + plain


def streamed(files: dict[str, bytes]) -> bytes:
    """An archive written to a pipe: each file's sizes follow its data."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.content = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, chunk: Any) -> int:
            self.content += chunk
            return len(chunk)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return bytes(pipe.content)


def forced_zip64(files: dict[str, bytes]) -> bytes:
    """An archive whose local headers leave room for files of any size."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=True) as entry:
                entry.write(data)
    return buffer.getvalue()


def png(colour: int = 0, size: tuple[int, int] = (8, 8), *, mode: str = "RGB") -> bytes:
    """A small image; each colour gives other bytes."""
    return picture("PNG", colour, size, mode=mode)


def picture(
    kind: str, colour: int = 0, size: tuple[int, int] = (8, 8), *, mode: str = "RGB"
) -> bytes:
    """A small image of any format."""
    levels: object = colour % 256
    if mode in ("RGB", "RGBA", "CMYK"):
        levels = (colour % 256, colour // 256 % 256, 50, 255)[: len(mode)]
    buffer = io.BytesIO()
    Image.new(mode, size, levels).save(buffer, kind)  # type: ignore[arg-type]  # what is given is meant to vary
    return buffer.getvalue()


def good_files(per_class: int = 3, classes: str = "ab") -> dict[str, bytes]:
    """Class folders that can be trained on."""
    return {
        f"{name}/{number}.png": png(place * 1000 + number)
        for place, name in enumerate(classes)
        for number in range(per_class)
    }


def pack(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An ordinary archive; a name that ends with a slash is a folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_good(*entries: Raw) -> bytes:
    """An archive that is good but for `entries`."""
    good = [Raw(name.encode(), data) for name, data in good_files().items()]
    return build([*good, *entries])


def write(path: Path, content: bytes) -> Path:
    """A file with that content."""
    path.write_bytes(content)
    return path
