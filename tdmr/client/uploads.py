"""Sending datasets: small files at once, large ones by tus 1.0.0, folders packed; and weights.

By tus a broken connection costs a piece of the file, not the whole: the server says how many bytes
it has for good, and the next piece begins there.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx

from tdmr.client import calls
from tdmr.client.calls import Call
from tdmr.client.errors import DigestError, UnexpectedAnswerError, error_of
from tdmr.client.retries import Backoff
from tdmr.client.steps import Parse, Pause, Send, Steps, Work, ask
from tdmr.wire.datasets import DatasetOut
from tdmr.wire.models import OwnModelOut

D = TypeVar("D", bound=DatasetOut)
M = TypeVar("M", bound=OwnModelOut)
Progress = Callable[[int, int], None]

DATASET = "Tdmr-Dataset"
PIECE = 16 << 20  # bytes in one request
RESUMABLE_FROM = 64 << 20  # smaller files are sent again faster than they are gone on with
PASSES = (409, 423, 429, 500, 502, 503, 504)  # what another try may not meet again


@dataclass(frozen=True)
class How:
    """How to send."""

    on_progress: Progress | None = None
    on_packed: Progress | None = None
    resumable_from: int = RESUMABLE_FROM
    patience: float = 300.0

    def sent(self, done: int, total: int) -> None:
        """Tell how many bytes have arrived."""
        if self.on_progress is not None:
            self.on_progress(done, total)


def upload(source: Path, name: str | None, parse: Parse[D], how: How) -> Steps[D]:
    """Send an archive, or a folder as one; the dataset.

    Raises DigestError when the server has stored something else.
    """
    if not source.is_dir():
        return (yield from _send(source, name or source.stem, parse, how))
    with tempfile.TemporaryDirectory(prefix="tdmr-") as scratch:
        packed = Path(scratch) / "dataset.zip"
        yield Work(lambda: pack(source, packed, how.on_packed))
        return (yield from _send(packed, name or source.resolve().name, parse, how))


def upload_model(weights: Path, parse: Parse[M], how: How, told: dict[str, str | None]) -> Steps[M]:
    """Send a safetensors file; the model. Raises DigestError as `upload` does."""
    call = calls.create_model(weights, how.on_progress, **told)
    found = yield from ask(call, parse, how.patience)
    if found.sha256 != (yield Work(lambda: sha256(weights))):
        raise DigestError(f"{weights} arrived with another SHA-256 than it has here.")
    return found


def pack(folder: Path, archive: Path, on_packed: Progress | None = None) -> None:
    """Put every file below `folder` into a zip archive, as it is: images are compressed already.

    `on_packed` is told how many bytes are in, and of how many. Raises ValueError for no file.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise ValueError(f"There are no files in {folder}.")
    done, total = 0, sum(path.stat().st_size for path in files)
    with zipfile.ZipFile(archive, "w", strict_timestamps=False) as packed:
        for path in files:
            packed.write(path, path.relative_to(folder).as_posix())
            done += path.stat().st_size
            if on_packed is not None:
                on_packed(done, total)


def _send(archive: Path, name: str, parse: Parse[D], how: How) -> Steps[D]:
    total = archive.stat().st_size
    if total < how.resumable_from:
        found = yield from ask(calls.create_dataset(archive, name), parse, how.patience)
        how.sent(total, total)
        return found
    url = yield from _by_tus(archive, name, how)
    found = yield from ask(Call("GET", url), parse, how.patience)
    if found.upload_sha256 != (yield Work(lambda: sha256(archive))):
        raise DigestError(f"{archive} arrived with another SHA-256 than it has here.")
    return found


def _by_tus(archive: Path, name: str, how: How) -> Steps[str]:
    """Send a file in pieces; where its dataset is.

    Trouble that may pass is put up with for `patience` seconds without a new byte. Raises ApiError
    and httpx.TransportError.
    """
    upload, backoff, reached = _Upload(archive, name), Backoff(how.patience), -1
    while True:
        pause: float | None = 0.0
        try:
            response: httpx.Response = yield Send(upload.next())
        except httpx.TransportError:
            pause = backoff.pause()
            if pause is None:
                raise
        else:
            if response.is_error:
                pause = backoff.pause(response) if response.status_code in PASSES else None
                if pause is None:
                    raise error_of(response)
            elif DATASET in response.headers:
                how.sent(upload.total, upload.total)
                return str(response.headers[DATASET])
            else:
                upload.heard(response)
        if upload.offset > reached:
            reached = upload.offset
            backoff.restart()
            how.sent(reached, upload.total)
        if pause:
            yield Pause(pause)


class _Upload:
    """One upload: where it is, and how far."""

    def __init__(self, archive: Path, name: str) -> None:
        self._archive = archive
        self._url: str | None = None
        self._known = False  # whether `offset` is what the server has
        self.total = archive.stat().st_size
        self._begin = calls.begin_upload(self.total, name)  # with a key, which repeats keep
        self.offset = -1

    def next(self) -> Call:
        """What to ask for: begin, say how far it is, or take a piece."""
        if self._url is None:
            return self._begin
        if not self._known:
            return calls.reached(self._url)
        self._known = False
        count = min(PIECE, self.total - self.offset)
        return calls.append(self._url, self._archive, self.offset, count)

    def heard(self, response: httpx.Response) -> None:
        """Take note of a good answer. Raises UnexpectedAnswerError for one that isn't tus."""
        offset = response.headers.get("Upload-Offset", "")
        self._url = self._url or response.headers.get("Location")
        if self._url is None or not (offset.isascii() and offset.isdigit()):
            detail = f"{response.url} doesn't answer as tus does."
            raise UnexpectedAnswerError(response.status_code, {"detail": detail})
        self.offset, self._known = int(offset), True


def sha256(path: Path) -> str:
    """A file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
