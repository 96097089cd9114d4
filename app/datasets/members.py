"""What every archive format comes down to: files that may be read, by name and place.

Names stay data. What isn't safe to read is reported and left out.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from app.datasets import names
from app.datasets.findings import Findings, shown
from app.datasets.options import CheckOptions

CHUNK = 1 << 16
RATIO_FLOOR = 1 << 20  # bytes; what unpacks to less than this may be packed as well as it likes
STORED, DEFLATED = 0, 8

Parts = tuple[str, ...]
EntryKind = Literal["file", "folder", "link", "special"]


class ArchiveError(Exception):
    """The archive, or one entry of it, can't be taken: a finding's code, detail and advice."""

    def __init__(self, code: str, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.code, self.detail, self.advice = code, detail, advice


def malformed(detail: str) -> ArchiveError:
    """The archive contradicts itself."""
    return ArchiveError(
        "malformed_archive",
        f"The archive contradicts itself: {detail}.",
        "Make the archive again with an ordinary program, and upload it whole.",
    )


@dataclass(frozen=True, slots=True)
class Member:
    """A file that may be read: its name in the archive, the parts of it, and where it lies.

    Formats without checksums of their own have no `crc`.
    """

    name: str
    parts: Parts
    size: int
    start: int
    packed: int
    method: int = STORED
    crc: int | None = None


@dataclass
class Archive:
    """The files of an upload, and its folders (also the empty ones).

    Reading keeps no position, so that several processes can read at once.
    """

    path: Path
    members: list[Member] = field(default_factory=list)
    folders: set[Parts] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._handle = os.open(self.path, os.O_RDONLY)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._handle)

    def read(self, member: Member) -> bytes:
        """A file's bytes, never more than it declared. Raises ArchiveError for a damaged one."""
        data = b"".join(self._unpack(member))
        wrong = member.crc is not None and zlib.crc32(data) != member.crc
        if len(data) != member.size or wrong:
            raise ArchiveError(
                "damaged_file",
                f"{shown(member.name)} is damaged: its size or checksum is wrong.",
                "Make the archive again, and upload it whole.",
            )
        return data

    def _unpack(self, member: Member) -> Iterator[bytes]:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == DEFLATED else None
        place, end = member.start, member.start + member.packed
        room = member.size + 1  # one byte more shows that there is more
        while place < end and room > 0:
            chunk = os.pread(self._handle, min(CHUNK, end - place), place)
            if not chunk:
                return
            place += len(chunk)
            if inflate is not None:
                try:
                    chunk = inflate.decompress(chunk, room)
                except zlib.error:
                    return
            room -= len(chunk)
            yield chunk


def acceptable(name: str, kind: EntryKind, findings: Findings) -> bool:
    """Whether an entry's name and kind can be taken; what can't is reported."""
    reason = names.trouble(name)
    if reason is None and kind != "folder" and not names.parts_of(name):
        reason = "it names the archive's own folder"
    if reason is not None:
        findings.error(
            "unsafe_name",
            f"The archive has an entry that can't be taken: {reason}.",
            "Name the files with plain relative paths, such as cats/1.png.",
            name,
        )
    elif kind == "link":
        findings.error(
            "link",
            f"{shown(name)} is a link.",
            "Put the file itself into the archive (zip without -y, tar with -h).",
            name,
        )
    elif kind == "special":
        findings.error(
            "special_file",
            f"{shown(name)} is a device, a pipe, a socket or a sparse file.",
            "Leave it out of the archive.",
            name,
        )
    else:
        return True
    return False


def check_count(count: int, options: CheckOptions) -> None:
    """Raises ArchiveError when an archive has too many entries."""
    if count > options.max_entries:
        raise ArchiveError(
            "too_many_files",
            f"The archive has more than {options.max_entries} entries.",
            "Upload fewer images.",
        )


def check_unpacked(size: int, packed: int | None, options: CheckOptions) -> None:
    """Raises ArchiveError when an archive unpacks to too much, or to too much for its size."""
    if size > options.max_unpacked_bytes:
        raise ArchiveError(
            "too_many_bytes",
            f"The archive unpacks to more than {options.max_unpacked_bytes} bytes.",
            "Upload fewer or smaller images.",
        )
    if packed is not None and size > RATIO_FLOOR and size > options.max_ratio * packed:
        raise ArchiveError(
            "compression_ratio",
            f"The archive unpacks to more than {options.max_ratio:g} times its size.",
            "Upload ordinary images.",
        )
