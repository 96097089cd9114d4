"""Archives: walked entry by entry, never extracted; names stay data.

What isn't safe to read is reported and left out; what contradicts the format ends the walk.
"""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from app.datasets import names
from app.datasets.findings import Findings, shown
from app.datasets.options import CheckOptions
from app.datasets.zipdir import (
    DEFLATED,
    STORED,
    ArchiveError,
    Directory,
    Entry,
    data_start,
    entries,
    find_directory,
    malformed,
)

CHUNK = 1 << 16
RATIO_FLOOR = 1 << 20  # bytes; what unpacks to less than this may be packed as well as it likes
ZIP_AGAIN = "Make the archive again with an ordinary zip program, and upload it whole."


@dataclass(frozen=True, slots=True)
class Member:
    """A file that may be read: its name in the archive, the parts of it, and where it lies."""

    name: str
    parts: tuple[str, ...]
    entry: Entry
    start: int


@dataclass
class Archive:
    """An open archive: the files in it, and its folders (also the empty ones)."""

    file: IO[bytes]
    members: list[Member] = field(default_factory=list)
    folders: set[tuple[str, ...]] = field(default_factory=set)

    def read(self, member: Member) -> bytes:
        """A file's bytes, never more than it declared. Raises ArchiveError for a damaged one."""
        data = b"".join(self._unpack(member))
        if len(data) != member.entry.size or zlib.crc32(data) != member.entry.crc:
            raise ArchiveError(
                "damaged_file",
                f"{shown(member.name)} is damaged: its size or checksum is wrong.",
                ZIP_AGAIN,
            )
        return data

    def _unpack(self, member: Member) -> Iterator[bytes]:
        entry = member.entry
        inflate = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == DEFLATED else None
        packed_left, room = entry.packed, entry.size + 1  # one byte more shows that there is more
        self.file.seek(member.start)
        while packed_left and room > 0:
            chunk = self.file.read(min(CHUNK, packed_left))
            if not chunk:
                return
            packed_left -= len(chunk)
            if inflate is not None:
                try:
                    chunk = inflate.decompress(chunk, room)
                except zlib.error:
                    return
            room -= len(chunk)
            yield chunk


@contextmanager
def opened(path: Path, options: CheckOptions, findings: Findings) -> Iterator[Archive | None]:
    """Open an upload and list what may be read of it; None when nothing may."""
    with path.open("rb") as file:
        archive: Archive | None = Archive(file)
        try:
            assert archive is not None
            _list(archive, options, findings)
        except ArchiveError as error:
            findings.error(error.code, error.detail, error.advice)
            archive = None
        yield archive


def _list(archive: Archive, options: CheckOptions, findings: Findings) -> None:
    directory = find_directory(archive.file)
    if directory.count > options.max_entries:
        raise ArchiveError(
            "too_many_files",
            f"The archive has {directory.count} entries; {options.max_entries} are allowed.",
            "Upload fewer images.",
        )
    accepted = [
        entry
        for entry in entries(archive.file, directory)
        if _acceptable(archive, entry, options, findings)
    ]
    _check_totals(accepted, options)
    archive.members = _locate(archive.file, directory, accepted)
    _check_collisions(archive.members, findings)
    _drop_litter(archive, findings)


def _acceptable(archive: Archive, entry: Entry, options: CheckOptions, findings: Findings) -> bool:
    """Whether `entry` is a file that may be read; folders are noted, the rest is reported."""
    name = entry.name
    reason = names.trouble(name)
    if reason is not None:
        findings.error(
            "unsafe_name",
            f"The archive has an entry that can't be taken: {reason}.",
            "Name the files with plain relative paths, such as cats/1.png.",
            name,
        )
        return False
    kind = stat.S_IFMT(entry.mode)
    if kind == stat.S_IFLNK:
        findings.error(
            "link",
            f"{shown(name)} is a link.",
            "Put the file itself into the archive (zip without -y).",
            name,
        )
        return False
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        findings.error(
            "special_file",
            f"{shown(name)} is a device, a pipe or a socket.",
            "Leave it out of the archive.",
            name,
        )
        return False
    if name.endswith("/") or kind == stat.S_IFDIR:
        if entry.size:
            raise malformed("a folder has content")
        archive.folders.add(names.parts_of(name))
        return False
    return _readable(entry, name, options, findings)


def _readable(entry: Entry, name: str, options: CheckOptions, findings: Findings) -> bool:
    """Whether the bytes of a plain file can be had within the limits."""
    if entry.encrypted:
        findings.error(
            "encrypted",
            f"{shown(name)} is encrypted.",
            "Make the archive without a password.",
            name,
        )
    elif entry.method not in (STORED, DEFLATED):
        findings.error(
            "unsupported_compression",
            f"{shown(name)} is packed with method {entry.method}.",
            "Make the archive with the ordinary method (deflate), or without compression.",
            name,
        )
    elif entry.method == STORED and entry.packed != entry.size:
        raise malformed("an unpacked file has two sizes")
    elif entry.size > RATIO_FLOOR and entry.size > options.max_ratio * entry.packed:
        findings.error(
            "compression_ratio",
            f"{shown(name)} unpacks to more than {options.max_ratio:g} times its size.",
            "Upload ordinary images.",
            name,
        )
    else:
        return True
    return False


def _check_totals(accepted: list[Entry], options: CheckOptions) -> None:
    size = sum(entry.size for entry in accepted)
    packed = sum(entry.packed for entry in accepted)
    if size > options.max_unpacked_bytes:
        raise ArchiveError(
            "too_many_bytes",
            f"The archive unpacks to {size} bytes; {options.max_unpacked_bytes} are allowed.",
            "Upload fewer or smaller images.",
        )
    if size > RATIO_FLOOR and size > options.max_ratio * packed:
        raise ArchiveError(
            "compression_ratio",
            f"The archive unpacks to more than {options.max_ratio:g} times its size.",
            "Upload ordinary images.",
        )


def _locate(file: IO[bytes], directory: Directory, accepted: list[Entry]) -> list[Member]:
    """The accepted files and where they begin. Raises ArchiveError when two share a byte."""
    members = []
    free_from = 0
    for entry in sorted(accepted, key=lambda entry: entry.offset):
        if entry.offset < free_from:
            raise ArchiveError(
                "overlapping_files", "Two files of the archive share bytes.", ZIP_AGAIN
            )
        start = data_start(file, entry)
        free_from = start + entry.packed
        if free_from > directory.start:
            raise malformed("a file reaches into the directory")
        name = entry.name
        members.append(Member(name, names.parts_of(name), entry, start))
    return sorted(members, key=lambda member: member.parts)


def _check_collisions(members: list[Member], findings: Findings) -> None:
    """Report names that are one and the same on some file system, naming both."""
    seen: dict[str, tuple[str, bool]] = {}  # folded path -> the path, and whether it's a file
    for member in members:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        for depth in range(1, len(parts) + 1):
            path, is_file = "/".join(parts[:depth]), depth == len(parts)
            key = names.fold(path)
            if key not in seen:
                seen[key] = path, is_file
            elif is_file or seen[key] != (path, False):
                findings.error(
                    "name_collision",
                    f"{shown(seen[key][0])} and {shown(path)} are one name on some computers.",
                    "Rename one of them, or leave it out.",
                    member.name,
                )
                break


def _drop_litter(archive: Archive, findings: Findings) -> None:
    """Forget what operating systems leave behind, and say how much that was."""
    litter = [member for member in archive.members if names.is_litter(member.parts)]
    archive.members = [member for member in archive.members if not names.is_litter(member.parts)]
    archive.folders = {parts for parts in archive.folders if parts and not names.is_litter(parts)}
    if litter:
        findings.warn(
            "system_files",
            f"{len(litter)} hidden or system file(s) were ignored.",
            "Nothing needs to be done.",
            litter[0].name,
        )
