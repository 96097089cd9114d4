"""Zip archives: every entry looked at, and located without an overlap."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import IO

from app.datasets import names
from app.datasets.findings import Findings, shown
from app.datasets.members import (
    DEFLATED,
    RATIO_FLOOR,
    STORED,
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
from app.datasets.zipdir import Directory, Entry, data_start, entries, find_directory


def listed(path: Path, options: CheckOptions, findings: Findings) -> Archive:
    """What may be read of a zip archive. Raises ArchiveError when nothing may."""
    archive = Archive(path)
    with path.open("rb") as file:
        directory = find_directory(file)
        check_count(directory.count, options)
        accepted = [
            entry for entry in entries(file, directory) if _taken(archive, entry, options, findings)
        ]
        size, packed = (sum(getattr(e, name) for e in accepted) for name in ("size", "packed"))
        check_unpacked(size, packed, options)
        archive.members = _locate(file, directory, accepted)
    return archive


def _taken(archive: Archive, entry: Entry, options: CheckOptions, findings: Findings) -> bool:
    """Whether `entry` is a file that may be read; folders are noted, the rest is reported."""
    kind = _kind(entry)
    if not acceptable(entry.name, kind, findings):
        return False
    if kind == "folder":
        if entry.size:
            raise malformed("a folder has content")
        archive.folders.add(names.parts_of(entry.name))
        return False
    return _readable(entry, options, findings)


def _kind(entry: Entry) -> EntryKind:
    mode = stat.S_IFMT(entry.mode)
    if mode == stat.S_IFLNK:
        return "link"
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "special"
    return "folder" if entry.name.endswith("/") or mode == stat.S_IFDIR else "file"


def _readable(entry: Entry, options: CheckOptions, findings: Findings) -> bool:
    """Whether the bytes of a plain file can be had within the limits."""
    name = entry.name
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


def _locate(file: IO[bytes], directory: Directory, accepted: list[Entry]) -> list[Member]:
    """The accepted files and where they begin. Raises ArchiveError when two share a byte."""
    members = []
    free_from = 0
    for entry in sorted(accepted, key=lambda entry: entry.offset):
        check_apart(entry, free_from)
        start = data_start(file, entry, directory)
        free_from = start + entry.packed
        if free_from > directory.start:
            raise malformed("a file reaches into the directory")
        members.append(
            Member(
                name=entry.name,
                parts=names.parts_of(entry.name),
                size=entry.size,
                start=start,
                packed=entry.packed,
                method=entry.method,
                crc=entry.crc,
            )
        )
    return sorted(members, key=lambda member: member.parts)


def check_apart(entry: Entry, free_from: int) -> None:
    """Raises ArchiveError when an entry begins before the one in front of it has ended."""
    if entry.offset < free_from:
        raise ArchiveError(
            "overlapping_files",
            "Two files of the archive share bytes.",
            "Make the archive again with an ordinary zip program.",
        )
