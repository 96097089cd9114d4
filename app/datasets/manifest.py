"""Manifests: a CSV or JSONL file beside images that says `file,label[,split]` for each.

Names are relative to the manifest's folder. Several manifests are read together, so that one for
each split will do (`train.csv`, `test.csv`; or `train/metadata.csv`).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.datasets import labels, names
from app.datasets.findings import Findings, shown
from app.datasets.layout import Layout, ignored, looks_like_image
from app.datasets.members import Archive, ArchiveError, Member, Parts
from tdmr.data.index import Split

SUFFIXES = ("csv", "tsv", "jsonl", "ndjson")
FILE = ("file", "file_name", "filename", "path", "image")
LABEL = ("label", "class", "category")
MAX_BYTES = 256 << 20
HEAD = 1 << 16  # of a file that may be a manifest: its first line is in there
ADVICE = "Write one line for each image: file, label and, if you like, split."


@dataclass(frozen=True, slots=True)
class _Row:
    number: int  # of the line, from 1
    file: str
    label: str
    split: str


class _BrokenError(Exception):
    """A manifest can't be read any further: the line, and why."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line, self.reason = line, reason


def find(archive: Archive) -> list[Member]:
    """The archive's manifests: files of tables in its top two levels that name files and labels."""
    return [
        member
        for member in archive.members
        if len(member.parts) <= 2 and _suffix(member) in SUFFIXES and _is_manifest(archive, member)
    ]


def place(archive: Archive, manifests: list[Member], findings: Findings) -> Layout:
    """Give every image the class that a manifest says; what isn't in one is left out, and said."""
    layout = Layout()
    files = {member.parts: member for member in archive.members}
    placed: dict[Parts, tuple[str, Split | None]] = {}
    for manifest in manifests:
        split = _split_of(manifest)
        try:
            for row in _rows(archive, manifest):
                _place(row, manifest, split, files, placed, layout, findings)
        except _BrokenError as error:
            findings.error(
                "unreadable_manifest",
                f"{shown(manifest.name)} can't be read at line {error.line}: {error.reason}.",
                ADVICE,
                manifest.name,
            )
    _report_others(archive, manifests, placed, findings)
    return layout


def _place(
    row: _Row,
    manifest: Member,
    split: Split | None,
    files: dict[Parts, Member],
    placed: dict[Parts, tuple[str, Split | None]],
    layout: Layout,
    findings: Findings,
) -> None:
    """Place the image of one line, or report why not."""
    where = f"{manifest.name}, line {row.number},"
    if names.trouble(row.file) is not None:
        findings.error(
            "unsafe_name",
            f"{shown(where)} names a file that can't be taken: {names.trouble(row.file)}.",
            "Name the files with plain relative paths, such as images/1.png.",
            manifest.name,
        )
        return
    relative = names.parts_of(row.file)
    parts = (*manifest.parts[:-1], *relative)
    member = files.get(parts) or files.get(relative)
    if member is None:
        findings.error(
            "missing_file",
            f"{shown(where)} names {shown(row.file)}, which isn't in the archive.",
            "Add the file, or remove the line.",
            manifest.name,
        )
        return
    label = labels.label(row.label)
    reason = labels.trouble(label)
    if reason is not None:
        labels.refuse(where, reason, findings, manifest.name)
        return
    if row.split.strip():
        split = labels.split(row.split)
        if split is None:
            labels.refuse_split(where, row.split, findings, manifest.name)
            return
    _place_once(member, label, split, placed, layout, findings)


def _place_once(
    member: Member,
    label: str,
    split: Split | None,
    placed: dict[Parts, tuple[str, Split | None]],
    layout: Layout,
    findings: Findings,
) -> None:
    before = placed.get(member.parts)
    if before is None:
        placed[member.parts] = label, split
        layout.add(member, label, split)
    elif before == (label, split):
        findings.warn(
            "listed_twice",
            f"{shown(member.name)} is listed twice.",
            "Nothing needs to be done.",
            member.name,
        )
    else:
        findings.error(
            "two_labels",
            f"{shown(member.name)} is listed as {_said(before)} and as {_said((label, split))}.",
            "Leave one line for each image.",
            member.name,
        )


def _said(pair: tuple[str, Split | None]) -> str:
    label, split = pair
    return shown(label) + (f" in {split}" if split else "")


def _report_others(
    archive: Archive, manifests: list[Member], placed: dict[Parts, Any], findings: Findings
) -> None:
    for member in archive.members:
        if member.parts in placed or member in manifests:
            continue
        if looks_like_image(member.name):
            findings.warn(
                "unlisted_image",
                f"{shown(member.name)} isn't in the manifest and was left out.",
                "Add a line for it, if it belongs to the dataset.",
                member.name,
            )
        else:
            ignored(member, findings)


def _split_of(manifest: Member) -> Split | None:
    """The split that a manifest's own name, or its folder's, says."""
    stem = manifest.parts[-1].rpartition(".")[0]
    folder = manifest.parts[-2] if len(manifest.parts) > 1 else ""
    return labels.split(stem) or labels.split(folder)


def _suffix(member: Member) -> str:
    return member.parts[-1].rpartition(".")[2].casefold()


def _is_manifest(archive: Archive, member: Member) -> bool:
    try:
        first = next(_rows(archive, member, lines=3), None)
    except _BrokenError:
        return False
    return first is not None


def _rows(archive: Archive, manifest: Member, lines: int | None = None) -> Iterator[_Row]:
    """The lines of a manifest. Raises _BrokenError where one can't be read."""
    if manifest.size > MAX_BYTES:
        raise _BrokenError(1, f"it has more than {MAX_BYTES} bytes")
    try:
        text = archive.read(manifest).decode("utf-8-sig")
    except (ArchiveError, UnicodeDecodeError) as error:
        raise _BrokenError(1, "it is damaged, or isn't UTF-8") from error
    stream = io.StringIO(text, newline="")
    make = _json_rows if _suffix(manifest) in ("jsonl", "ndjson") else _csv_rows
    for number, row in make(stream):
        yield _row(number, row)
        if lines is not None and number >= lines:
            return


def _csv_rows(stream: io.StringIO) -> Iterator[tuple[int, dict[str, Any]]]:
    header = stream.readline()
    stream.seek(0)
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(stream, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row:
                raise _BrokenError(reader.line_num, "it has more columns than the first line")
            named = {str(key).strip().casefold(): value or "" for key, value in row.items()}
            yield reader.line_num, named
    except csv.Error as error:
        raise _BrokenError(reader.line_num, str(error)) from error


def _json_rows(stream: io.StringIO) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _BrokenError(number, "it isn't JSON") from error
        if not isinstance(row, dict):
            raise _BrokenError(number, "it isn't an object")
        yield number, row


def _row(number: int, row: dict[str, Any]) -> _Row:
    file, label = (_value(row, columns) for columns in (FILE, LABEL))
    if file is None or label is None:
        missing = "file" if file is None else "label"
        raise _BrokenError(number, f"it has no {missing}")
    return _Row(number, file, label, _value(row, ("split",)) or "")


def _value(row: dict[str, Any], columns: tuple[str, ...]) -> str | None:
    for column in columns:
        value = row.get(column)
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            return str(value)
    return None
