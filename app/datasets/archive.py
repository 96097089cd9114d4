"""An upload, opened: whatever its format, the files in it that may be read."""

from __future__ import annotations

from pathlib import Path

from app.datasets import formats, names, tars, zips
from app.datasets.findings import Findings, shown
from app.datasets.formats import Format
from app.datasets.members import Archive, Member
from app.datasets.options import CheckOptions


def listed(upload: Path, spool: Path, options: CheckOptions, findings: Findings) -> Archive:
    """What may be read of an archive. Raises ArchiveError when nothing may.

    A compressed tar is unpacked to the file `spool` first, within the limits.
    """
    archive = _list(upload, spool, options, findings)
    _check_collisions(archive.members, findings)
    _drop_litter(archive, findings)
    return archive


def _list(upload: Path, spool: Path, options: CheckOptions, findings: Findings) -> Archive:
    kind = formats.of(upload)
    if kind is Format.ZIP:
        return zips.listed(upload, options, findings)
    if kind is Format.TAR:
        return tars.listed(upload, options, findings)
    if kind is Format.GZIP:
        tars.unzip(upload, spool, options)
        if formats.of(spool) is Format.TAR:
            return tars.listed(spool, options, findings)
    raise formats.not_an_archive()


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
