"""Fetching a student: what was cut off goes on where it was, and appears only when it's whole.

Until then a download lies in a hidden folder beside its target: NAME.part has the bytes so far,
NAME.tag the entity tag of the file that they are of. A later process finds and continues it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from tdmr.client.calls import Call, get
from tdmr.client.errors import DigestError, UnexpectedAnswerError, error_of
from tdmr.client.retries import PASSING, Backoff
from tdmr.client.steps import Open, Pause, Read, Steps, Work
from tdmr.client.uploads import Progress, sha256
from tdmr.wire.students import FileOut, StudentOut

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_FROM = re.compile(r"bytes (\d+)-\d+/")


def download(
    student: StudentOut, folder: Path, on_progress: Progress | None, patience: float
) -> Steps[Path]:
    """Fetch every file of a student into a new folder, each checked against its SHA-256.

    The folder appears only when it is complete. Raises FileExistsError when it's there,
    DigestError, ApiError and httpx.TransportError; what has arrived by then is gone on with.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; choose a new folder.")
    staged = folder.with_name(f".{folder.name}.{student.id}")
    staged.mkdir(parents=True, exist_ok=True)
    total, before = sum(row.bytes for row in student.files), 0
    for row in student.files:

        def tell(done: int, before: int = before) -> None:
            if on_progress is not None:
                on_progress(before + done, total)

        if not _NAME.fullmatch(row.name):
            raise UnexpectedAnswerError(200, {"detail": f"{row.name!r} is no name of a file."})
        call = get("students", student.id, "files", row.name)
        yield from _fetch(call, row, _Part(staged / row.name), tell, patience)
        before += row.bytes
        tell(0, before)
    staged.rename(folder)
    return folder


@dataclass(frozen=True)
class _Part:
    """A file that isn't whole yet."""

    target: Path

    @property
    def path(self) -> Path:
        """The bytes so far."""
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def tag(self) -> Path:
        """The entity tag of the file that they are of."""
        return self.target.with_name(f"{self.target.name}.tag")

    def begun(self) -> tuple[int, str]:
        """How many bytes there are, and of what; 0 when nobody knows of what."""
        if not (self.path.exists() and self.tag.exists()):
            return 0, ""
        return self.path.stat().st_size, self.tag.read_text(encoding="utf-8")

    def start(self, tag: str) -> None:
        """Begin anew. Without a tag it can't be gone on with."""
        self.drop()
        self.path.touch()
        if tag and not tag.startswith("W/"):  # If-Range takes strong ones alone
            self.tag.write_text(tag, encoding="utf-8")

    def drop(self) -> None:
        """Forget it."""
        self.tag.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def finish(self, row: FileOut) -> None:
        """Let it appear, if it's what the server says it is. Raises DigestError."""
        if sha256(self.path) != row.sha256:
            self.drop()
            raise DigestError(f"{row.name} arrived with another SHA-256 than the server states.")
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(self.target)
        self.tag.unlink(missing_ok=True)


def _fetch(
    call: Call, row: FileOut, part: _Part, tell: Callable[[int], None], patience: float
) -> Steps[None]:
    """Fetch one file, however often the connection breaks."""
    if part.target.exists():
        return  # an earlier process brought it to its end
    backoff = Backoff(patience)
    while True:
        reached = part.begun()[0]
        pause: float | None = None
        try:
            response = yield from _receive(call, row, part, tell)
        except httpx.TransportError:
            if part.begun()[0] > reached:
                backoff.restart()
            pause = backoff.pause()
            if pause is None:
                raise
        else:
            if response is None:
                break
            pause = backoff.pause(response) if response.status_code in PASSING else None
            if pause is None:
                raise error_of(response)
        yield Pause(pause)
    yield Work(lambda: part.finish(row))


def _receive(
    call: Call, row: FileOut, part: _Part, tell: Callable[[int], None]
) -> Steps[httpx.Response | None]:
    """Ask for what is missing, and add it; None, or the refusal."""
    offset, tag = part.begun()
    if offset and offset == row.bytes:
        return None  # the last byte came just before the end
    headers = {"Accept-Encoding": "identity"}  # ranges count the bytes of the file itself
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": tag}
    response: httpx.Response = yield Open(call.having(headers))
    if response.status_code == 416:  # it has become shorter
        part.drop()
        response = yield Open(call.having({"Accept-Encoding": "identity"}))
        offset = 0
    if response.is_error:
        return response
    if not _continues(response, offset):
        part.start(response.headers.get("ETag", ""))
        offset = 0
    tell(offset)
    with part.path.open("ab") as file:
        while chunk := (yield Read()):
            yield Work(lambda data=chunk: file.write(data))  # type: ignore[misc]  # a default in a lambda
            offset += len(chunk)
            tell(offset)
    return None


def _continues(response: httpx.Response, offset: int) -> bool:
    """Whether what comes belongs behind the bytes that are there. A whole file doesn't."""
    if response.status_code != 206:
        return False
    found = _FROM.match(response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != offset:
        detail = f"{response.url} sends another part than was asked for."
        raise UnexpectedAnswerError(206, {"detail": detail})
    return True
