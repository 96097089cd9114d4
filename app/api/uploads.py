"""Uploads: from the socket to the store in constant memory; what can't be taken leaves nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TypeVar

import anyio
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from app.api.body import content_length, media_type
from app.datasets.zipdir import END_RECORD_BYTES, end_record
from app.errors import (
    EmptyBodyError,
    NotAnArchiveError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
from app.storage import LocalStorage, Stored

BLOCK = 1 << 20
MEDIA_TYPES = ("application/zip", "application/x-zip-compressed")
STARTS = (b"PK\x03\x04", b"PK\x05\x06")

Value = TypeVar("Value")


def check_headers(request: Request, max_bytes: int) -> None:
    """Refuse what the headers alone show, before the body is asked for."""
    if media_type(request) not in MEDIA_TYPES:
        raise UnsupportedMediaTypeError(
            "Send the zip archive itself as the body, with Content-Type: application/zip."
        )
    declared = content_length(request)
    if declared == 0:
        raise _empty()
    if declared is not None and declared > max_bytes:
        raise _too_large(max_bytes)


async def store(request: Request, storage: LocalStorage, key: str, max_bytes: int) -> Stored:
    """Store the body under `key`, if it's a zip archive from its first bytes to its last.

    Nothing is stored when it isn't, or when the client goes away.
    """
    tail = b""
    async with _in_threads(storage.writing(key)) as writer:
        async for block in _blocks(request):
            if not writer.bytes and not block.startswith(STARTS):
                raise _not_an_archive()
            if writer.bytes + len(block) > max_bytes:
                raise _too_large(max_bytes)
            await run_in_threadpool(writer.write, block)
            tail = (tail + block)[-END_RECORD_BYTES:]
        if not writer.bytes:
            raise _empty()
        if end_record(tail) is None:
            raise _not_an_archive()
    return Stored(key, writer.bytes, writer.sha256)


async def _blocks(request: Request) -> AsyncIterator[bytes]:
    """The body in blocks of about a mebibyte; the first one comes as soon as it can be judged."""
    block = bytearray()
    wanted = len(STARTS[0])
    async for chunk in request.stream():
        block += chunk
        if len(block) >= wanted:
            yield bytes(block)
            block.clear()
            wanted = BLOCK
    if block:
        yield bytes(block)


@asynccontextmanager
async def _in_threads(manager: AbstractContextManager[Value]) -> AsyncIterator[Value]:
    """A context manager that waits for the disk, entered and left off the event loop."""
    value = await run_in_threadpool(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        with anyio.CancelScope(shield=True):  # clean up even when the request is cancelled
            await run_in_threadpool(manager.__exit__, type(error), error, error.__traceback__)
        raise
    await run_in_threadpool(manager.__exit__, None, None, None)


def _empty() -> EmptyBodyError:
    return EmptyBodyError("The body is empty. Send the zip archive itself.")


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"An upload may have at most {max_bytes} bytes.")


def _not_an_archive() -> NotAnArchiveError:
    return NotAnArchiveError(
        "The body isn't a whole zip archive. Send a .zip file with one folder of images per class."
    )
