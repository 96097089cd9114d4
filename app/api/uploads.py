"""Uploads: from the socket to the store in constant memory; what can't be taken leaves nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Protocol, TypeVar

import anyio
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from app import metrics
from app.api.body import content_length, media_type
from app.datasets import formats
from app.datasets.formats import HEAD_BYTES, KNOWN, MEDIA_TYPES, TAIL_BYTES, Format
from app.errors import (
    EmptyBodyError,
    NotAnArchiveError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
from app.storage import Storage, Stored, Writer

BLOCK = 1 << 20

Value = TypeVar("Value")


class Judge(Protocol):
    """Says of a body, as it comes, whether it can be taken; `what` says what could be."""

    what: str

    def take(self, block: bytes) -> None:
        """Look at the next block, the first having what a format is known by."""

    def end(self) -> None:
        """All of it has come."""


class Archive:
    """Takes what begins and ends as a known format does. Raises NotAnArchiveError otherwise."""

    what = KNOWN

    def __init__(self) -> None:
        self._kind: Format | None = None
        self._tail = b""

    def take(self, block: bytes) -> None:
        """Judge the first bytes, and keep the last ones."""
        self._kind = self._kind or judge_start(block)
        self._tail = (self._tail + block)[-TAIL_BYTES:]

    def end(self) -> None:
        """Judge the last bytes."""
        assert self._kind is not None, "an empty body is refused before"
        judge_end(self._kind, self._tail)


def check_headers(
    request: Request,
    max_bytes: int,
    types: Sequence[str] = MEDIA_TYPES,
    what: str = KNOWN,
) -> None:
    """Refuse what the headers alone show, before the body is asked for."""
    if media_type(request) not in types:
        raise UnsupportedMediaTypeError(
            f"Send {what} itself as the body, with its Content-Type: {', '.join(types)}."
        )
    declared = content_length(request)
    if declared == 0:
        raise _empty(what)
    if declared is not None and declared > max_bytes:
        raise _too_large(max_bytes)


async def store(
    request: Request,
    storage: Storage,
    key: str,
    max_bytes: int,
    judge: Judge | None = None,
) -> Stored:
    """Store the body under `key`, if `judge` takes it: an archive, unless another one is given.

    Nothing is stored when it doesn't, or when the client goes away.
    """
    judge = judge or Archive()
    async with _in_threads(storage.writing(key)) as writer:
        async for block in _blocks(request):
            await run_in_threadpool(_take, judge, writer, block, max_bytes)
        if not writer.bytes:
            raise _empty(judge.what)
        judge.end()
    return Stored(key, writer.bytes, writer.sha256)


def _take(judge: Judge, writer: Writer, block: bytes, max_bytes: int) -> None:
    judge.take(block)
    if writer.bytes + len(block) > max_bytes:
        raise _too_large(max_bytes)
    writer.write(block)
    metrics.UPLOADED.inc(len(block))


def judge_start(head: bytes) -> Format:
    """The format of an upload that begins so. Raises NotAnArchiveError for none."""
    kind = formats.sniff(head)
    if kind is None:
        raise _not_an_archive()
    return kind


def judge_end(kind: Format, tail: bytes) -> None:
    """Raises NotAnArchiveError when the last bytes can't be the end of that format."""
    if not formats.ends_well(kind, tail):
        raise _not_an_archive()


async def _blocks(request: Request) -> AsyncIterator[bytes]:
    """The body in blocks of about a mebibyte; the first one comes as soon as it can be judged."""
    block = bytearray()
    wanted = HEAD_BYTES
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
    except BaseException as error:  # handed on to the manager, and raised again
        with anyio.CancelScope(shield=True):  # clean up even when the request is cancelled
            await run_in_threadpool(manager.__exit__, type(error), error, error.__traceback__)
        raise
    await run_in_threadpool(manager.__exit__, None, None, None)


def _empty(what: str) -> EmptyBodyError:
    return EmptyBodyError(f"The body is empty. Send {what}.")


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"An upload may have at most {max_bytes} bytes.")


def _not_an_archive() -> NotAnArchiveError:
    return NotAnArchiveError(f"The body isn't {KNOWN}, or not a whole one.")
