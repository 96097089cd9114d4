"""The formats of uploads, told apart by their first bytes; what they are called doesn't count."""

from __future__ import annotations

import tarfile
from enum import Enum
from pathlib import Path

from app.datasets.members import ArchiveError
from app.datasets.zipdir import END_RECORD_BYTES, end_record

HEAD_BYTES = 512  # enough of the beginning to know the format by
TAIL_BYTES = END_RECORD_BYTES  # enough of the end to see that the end is there
KNOWN = "a zip, tar or tar.gz archive, or a Parquet file"
MEDIA_TYPES = (
    "application/zip",
    "application/x-zip-compressed",
    "application/x-tar",
    "application/gzip",
    "application/x-gzip",
    "application/vnd.apache.parquet",
    "application/octet-stream",
)
PARQUET_MAGIC = b"PAR1"


class Format(Enum):
    """What an upload can be."""

    ZIP = "zip"
    TAR = "tar"
    GZIP = "tar.gz"
    PARQUET = "parquet"


def sniff(head: bytes) -> Format | None:
    """The format by the first `HEAD_BYTES`, or None."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Format.ZIP
    if head.startswith(b"\x1f\x8b\x08"):
        return Format.GZIP
    if head.startswith(PARQUET_MAGIC):
        return Format.PARQUET
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return Format.TAR


def of(path: Path) -> Format | None:
    """The format of a file, or None."""
    with path.open("rb") as file:
        return sniff(file.read(HEAD_BYTES))


def ends_well(kind: Format, tail: bytes) -> bool:
    """Whether the last bytes, at most `TAIL_BYTES`, are an end of that format.

    A tar archive's end can't be told from its last bytes alone; the check looks for it.
    """
    if kind is Format.ZIP:
        return end_record(tail) is not None
    if kind is Format.PARQUET:
        return tail.endswith(PARQUET_MAGIC)
    return True


def not_an_archive() -> ArchiveError:
    """The upload has none of the formats, or is only the beginning of one."""
    return ArchiveError(
        "not_an_archive",
        f"The upload isn't {KNOWN}, or its end is missing.",
        "Upload an archive with one folder of images for each class.",
    )
