"""Fetch a published file: streamed, resumed where it stopped, its checksum verified before use."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import httpx

from tdmr.errors import DatasetError, TdmrError
from tdmr.suite.sources import Archive

OnBytes = Callable[[int, int], None]
TIMEOUT = 30.0  # seconds without a byte


class DownloadError(TdmrError):
    """A published file that can't be fetched, or isn't what was published."""

    code = "download"
    user_error = True
    retryable = True


def fetch(archive: Archive, target: Path, on_bytes: OnBytes = lambda done, total: None) -> None:
    """Download `archive` to `target`, which appears when it is complete and verified.

    What has arrived stays in `target`.part, and a later call goes on from there where the server
    permits. `on_bytes(done, total)` is told of every block. Raises DownloadError: no network, an
    answer other than the file, or (the .part is removed then) another checksum than published.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        # Some servers call a .tgz's own compression a transfer encoding; it must stay on.
        headers = {"Accept-Encoding": "identity"}
        with httpx.Client(follow_redirects=True, timeout=TIMEOUT, headers=headers) as client:
            if not _stream(client, archive, part, on_bytes):
                part.unlink()
                _stream(client, archive, part, on_bytes)
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise DownloadError(
            f"{archive.url} can't be downloaded: {reason}.",
            suggestion=f"Run it again to go on where it stopped, or {by_hand(archive, target)}",
        ) from error
    found = md5(part)
    if found != archive.md5:
        part.unlink()
        raise DownloadError(
            f"What came from {archive.url} has MD5 {found}, not {archive.md5} as published by "
            f"{archive.checked_by}; it was removed.",
            suggestion=f"Run it again, or {by_hand(archive, target)}",
        )
    part.rename(target)


def _stream(client: httpx.Client, archive: Archive, part: Path, on_bytes: OnBytes) -> bool:
    """Append what is missing of `part`; False when `part` can't be the beginning of the file."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with client.stream("GET", archive.url, headers=headers) as answer:
        if have and answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            # Nothing lies beyond what we have: it is the whole file, or not this file at all.
            return bool(answer.headers.get("Content-Range") == f"bytes */{have}")
        answer.raise_for_status()
        resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
        if resumed and not re.match(rf"bytes {have}-", answer.headers.get("Content-Range", "")):
            return False
        done = have if resumed else 0
        total = done + int(answer.headers.get("Content-Length", archive.bytes - done))
        with part.open("ab" if resumed else "wb") as file:
            # Blocks of a fixed size would be gathered first, and lost when the line breaks.
            for block in answer.iter_raw():
                file.write(block)
                done += len(block)
                on_bytes(done, total)
    return True


def verify(archive: Archive, path: Path) -> None:
    """Raise DatasetError unless the file at `path` has the published checksum."""
    found = md5(path)
    if found != archive.md5:
        raise DatasetError(
            f"{path} has MD5 {found}, not {archive.md5} as published by {archive.checked_by}.",
            suggestion="Remove the file, and download it again.",
        )


def md5(path: Path) -> str:
    """The MD5 of a file, in hex: what the datasets' publishers give, against damage only."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def by_hand(archive: Archive, target: Path) -> str:
    """How to do without the downloader, as the rest of a sentence."""
    return (
        f"place the file ({archive.bytes / 1e6:,.1f} MB, MD5 {archive.md5}) from {archive.url} "
        f"at {target} by hand."
    )
