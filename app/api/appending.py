"""The way of a body to the end of an upload's part, in constant memory.

What arrived is durable every few mebibytes, and when the connection breaks; the row says how much.
A body with a checksum counts whole or not at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app import metrics
from app.api.body import content_length
from app.api.core import Core
from app.api.tus import Checksum
from app.api.uploads import judge_end, judge_start
from app.datasets import formats, resumable
from app.errors import (
    AppError,
    ChecksumMismatchError,
    GoneError,
    NotAnArchiveError,
    OffsetMismatchError,
    RequestTimeoutError,
    TooLargeError,
)
from app.models import Upload
from app.storage import Part

BLOCK = 1 << 20
FLUSH = 16 << 20  # at most so much is sent again when the server is killed


async def append(
    request: Request,
    core: Core,
    owner: str,
    upload_id: str,
    offset: int,
    checksum: Checksum | None,
) -> Upload:
    """Append the body to an upload that has `offset` bytes; the upload as it is then.

    With the last byte it becomes a dataset. Raises an AppError, and ClientDisconnect when the
    client went away: what had arrived is kept then.
    """
    upload = await run_in_threadpool(_row, core, owner, upload_id)
    if upload.dataset_id is not None:
        return await _nothing_more(request, upload, offset)
    tail = await run_in_threadpool(_take_hold, core, owner, upload_id, offset)
    try:
        tail.check_room(content_length(request))
        tail.expect(checksum)
        try:
            async for block in _blocks(request):
                await run_in_threadpool(tail.take, block)
            await run_in_threadpool(tail.end)
        except (ClientDisconnect, RequestTimeoutError, anyio.get_cancelled_exc_class()):
            await _shielded(tail.keep_what_came)
            raise
        except NotAnArchiveError:
            await _shielded(tail.discard)
            raise
        except Exception:  # whatever it was, nothing of the piece stays
            await _shielded(tail.undo)
            raise
        return tail.upload
    finally:
        await _shielded(tail.close)


class _Tail:
    """The end of one upload, held by one request; everything but the checks waits for the disk."""

    def __init__(self, core: Core, upload: Upload, part: Part) -> None:
        self.upload = upload
        self._core, self._part = core, part
        self._known = upload.received_bytes >= formats.HEAD_BYTES
        self._checksum: Checksum | None = None
        self._running: Any = None

    def check_room(self, declared: int | None) -> None:
        """Refuse a body that is longer than what is missing. Raises TooLargeError."""
        rest = self.upload.length_bytes - self._part.bytes
        if declared is not None and declared > rest:
            raise TooLargeError(f"The upload lacks {rest} bytes, and the body has {declared}.")

    def expect(self, checksum: Checksum | None) -> None:
        """Take the body only if it's that."""
        self._checksum = checksum
        self._running = checksum.running() if checksum else None

    def take(self, block: bytes) -> None:
        """Append a block; what isn't an archive is refused as soon as it shows."""
        self.check_room(len(block))
        self._part.write(block)
        metrics.UPLOADED.inc(len(block))
        if self._running is not None:
            self._running.update(block)
        elif self._part.bytes - self.upload.received_bytes >= FLUSH and not self._whole:
            self._keep()
        self._check_head()

    def end(self) -> None:
        """The body is over: keep it, and make a dataset of the whole."""
        if self._checksum is not None and not self._checksum.matches(self._running):
            raise ChecksumMismatchError("The body doesn't have its checksum; nothing was appended.")
        if not self._whole:
            self._keep()
        elif self.upload.dataset_id is None:
            self._finish()

    def keep_what_came(self) -> None:
        """The body broke off: keep it as far as it came, unless only the whole of it counts."""
        if self._checksum is not None or self._whole:
            self.undo()
        else:
            self._keep()

    def undo(self) -> None:
        """Back to what the row says."""
        if self.upload.dataset_id is None:
            self._part.cut(self.upload.received_bytes)

    def discard(self) -> None:
        """Nothing can become of it."""
        resumable.drop(self._core.database, self._core.storage, self.upload.id)

    def close(self) -> None:
        """Let others have the part."""
        self._part.close()

    @property
    def _whole(self) -> bool:
        return self._part.bytes == self.upload.length_bytes

    def _keep(self) -> None:
        if self._part.bytes == self.upload.received_bytes:
            return
        self._part.sync()
        with self._core.database.write() as session:
            resumable.advance(session, self.upload, self._part.bytes, self._core.settings)

    def _check_head(self) -> None:
        if self._known or not (self._whole or self._part.bytes >= formats.HEAD_BYTES):
            return
        judge_start(self._part.read(0, formats.HEAD_BYTES))
        self._known = True

    def _finish(self) -> None:
        """The last byte counts with the dataset, in one transaction: before, it isn't there."""
        kind = judge_start(self._part.read(0, formats.HEAD_BYTES))
        start = max(0, self._part.bytes - formats.TAIL_BYTES)
        judge_end(kind, self._part.read(start, formats.TAIL_BYTES))
        storage, key = self._core.storage, resumable.part_key(self.upload.id)
        stored = storage.settle(key, self._part)
        with self._core.database.write() as session:
            resumable.finish(session, self.upload, stored, self._core.settings)
        storage.forget_part(key)
        self._core.relay.nudge()


def _take_hold(core: Core, owner: str, upload_id: str, offset: int) -> _Tail:
    """The upload's end, as the row has it. Raises an AppError."""
    try:
        part = core.storage.part(resumable.part_key(upload_id))
    except FileNotFoundError:
        raise _lost() from None
    try:
        upload = _row(core, owner, upload_id)  # as it is now that nobody else can move it
        if upload.received_bytes != offset:
            raise _mismatch(upload)
        if part.bytes < upload.received_bytes:
            raise _lost()
        part.cut(upload.received_bytes)  # what a killed server had written and not yet counted
    except BaseException:  # the lock goes with whatever ends this
        part.close()
        raise
    return _Tail(core, upload, part)


async def _nothing_more(request: Request, upload: Upload, offset: int) -> Upload:
    """A finished upload, to which only nothing can be appended: a repeat of the last request."""
    if offset != upload.received_bytes:
        raise _mismatch(upload)
    async for chunk in request.stream():
        if chunk:
            raise TooLargeError("The upload is complete.")
    return upload


def _row(core: Core, owner: str, upload_id: str) -> Upload:
    with core.database.read() as session:
        return resumable.get(session, owner, upload_id)


async def _blocks(request: Request) -> AsyncIterator[bytes]:
    """The body in blocks of about a mebibyte; all that came is given before an error is raised."""
    block = bytearray()
    broken: Exception | None = None
    try:
        async for chunk in request.stream():
            block += chunk
            if len(block) >= BLOCK:
                yield bytes(block)
                block.clear()
    except (ClientDisconnect, RequestTimeoutError) as error:
        broken = error
    if block:
        yield bytes(block)
    if broken is not None:
        raise broken


async def _shielded(action: Callable[[], None]) -> None:
    """Do it off the event loop, even when the request is cancelled."""
    with anyio.CancelScope(shield=True):
        await run_in_threadpool(action)


def _mismatch(upload: Upload) -> AppError:
    return OffsetMismatchError(
        f"The upload has {upload.received_bytes} bytes: send on from there.",
        headers={"Upload-Offset": str(upload.received_bytes)},
    )


def _lost() -> AppError:
    return GoneError("The server has lost what had arrived. Begin a new upload.")
