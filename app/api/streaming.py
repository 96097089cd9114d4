"""A job's log as server-sent events (HTML standard, section 9.2): each entry once, in order.

A client that was cut off names the last entry it saw (Last-Event-ID), and misses nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi import Request
from fastapi.responses import StreamingResponse

from app.access import keys
from app.access.scopes import Scope
from app.api.core import Core
from app.api.guard import key_of
from app.errors import AppError, BusyError, ErrorItem, InvalidError
from app.jobs import service
from app.jobs.states import ENDED
from app.models import Event
from tdmr.wire.jobs import EventOut

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_SECONDS = 15.0
RETRY_MS = 2000
PIECE = 200  # entries read at once
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def is_wanted(request: Request) -> bool:
    """Whether a client asks for a stream rather than for a page."""
    kinds = request.headers.get("accept", "").split(",")
    return any(kind.partition(";")[0].strip().casefold() == MEDIA_TYPE for kind in kinds)


def last_seen(request: Request) -> int:
    """The entry that a client saw last. Raises InvalidError."""
    given = request.headers.get("last-event-id", "0")
    if not (given.isascii() and given.isdigit() and len(given) <= 12):
        raise InvalidError(
            "Last-Event-ID isn't one of ours.",
            [
                ErrorItem(
                    pointer="/header/Last-Event-ID",
                    code="invalid_id",
                    detail="Send the id of the last event that arrived, or leave it out.",
                )
            ],
        )
    return int(given)


async def respond(core: Core, request: Request, job_id: str, after: int) -> StreamingResponse:
    """The stream of a job's log behind entry `after`.

    Raises NotFoundError, and BusyError when too many are open.
    """
    key = key_of(request)
    first = await _read(core, key, job_id, after)
    if request.state.head:
        return StreamingResponse(_nothing(), media_type=MEDIA_TYPE, headers=HEADERS)
    if core.streams >= core.settings.max_streams:
        raise BusyError("Too many streams are open. Poll the log, or try again.")
    frames = _frames(core, key, job_id, after, first)
    return StreamingResponse(frames, media_type=MEDIA_TYPE, headers=HEADERS)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


Read = tuple[list[Event], str]


async def _read(core: Core, key: str, job_id: str, after: int) -> Read:
    """The next entries, and the job's state as it was then; for a key that is still good."""

    def read() -> Read:
        with core.database.read() as session:
            caller = keys.authenticate(session, key)
            caller.require(Scope.JOBS_READ)
            view = service.get(session, caller.owner, job_id, core.settings)
            found = service.events(session, caller.owner, job_id, after, PIECE, core.settings)
            return found, view.job.state

    return await asyncio.get_running_loop().run_in_executor(core.readers, read)


async def _frames(
    core: Core, key: str, job_id: str, after: int, first: Read
) -> AsyncIterator[bytes]:
    core.streams += 1
    try:
        yield f"retry: {RETRY_MS}\n\n".encode()
        rows, state = first
        while True:
            if rows:
                yield b"".join(map(frame, rows))
                after = rows[-1].seq
            elif state in ENDED:
                yield f"event: end\ndata: {json.dumps({'status': state})}\n\n".encode()
                return
            elif core.watch.closed:
                return  # the client comes again, to whoever serves then
            elif not await core.watch.beyond(job_id, after, HEARTBEAT_SECONDS):
                yield b": still here\n\n"
            try:
                rows, state = await _read(core, key, job_id, after)
            except AppError:
                return  # the key is no longer good, or the job is gone
    finally:
        core.streams -= 1


def frame(event: Event) -> bytes:
    """One entry, as an event of the stream."""
    data = entry(event).model_dump_json()
    return f"id: {event.seq}\nevent: {event.type}\ndata: {data}\n\n".encode()


def entry(event: Event) -> EventOut:
    """One entry."""
    return EventOut(seq=event.seq, at=event.at, type=event.type, data=event.data)
