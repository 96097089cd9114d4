"""From an upload of any format to a layout: every file that should be an image, with its class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.datasets import archive, folders, formats, manifest, parquet, webdataset
from app.datasets.findings import Findings
from app.datasets.formats import Format
from app.datasets.layout import Layout
from app.datasets.members import Archive, ArchiveError
from app.datasets.options import CheckOptions
from app.datasets.parquet import OnRow


@contextmanager
def opened(
    upload: Path, spool: Path, options: CheckOptions, findings: Findings, on_row: OnRow
) -> Iterator[tuple[Archive, Layout] | None]:
    """Open an upload and place what may be read of it; None when nothing may.

    What must be unpacked as a whole goes to the file `spool`, within the limits.
    """
    found: tuple[Archive, Layout] | None = None
    try:
        if formats.of(upload) is Format.PARQUET:
            found = parquet.spooled(upload, spool, options, findings, on_row)
        else:
            listed = archive.listed(upload, spool, options, findings)
            with listed:
                found = listed, place(listed, findings)
    except ArchiveError as error:
        findings.error(error.code, error.detail, error.advice)
    if found is None:
        yield None
    else:
        with found[0]:
            yield found


def place(files: Archive, findings: Findings) -> Layout:
    """Where an archive's files belong, by the first that applies: manifest, keys, folders."""
    manifests = manifest.find(files)
    if manifests:
        return manifest.place(files, manifests, findings)
    samples = webdataset.find(files)
    if samples is not None:
        return webdataset.place(files, samples, findings)
    return folders.place(files, findings)
