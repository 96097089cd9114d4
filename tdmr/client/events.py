"""A job's log as it is written: sent by the server, or asked for page by page."""

from __future__ import annotations

import json

import httpx

from tdmr.client.calls import Call, get
from tdmr.client.errors import error_of, expected
from tdmr.client.reading import read
from tdmr.client.retries import PASSING, Backoff
from tdmr.client.sse import Parser
from tdmr.client.steps import Emit, Open, Pause, Read, Steps, answer
from tdmr.wire.base import Page
from tdmr.wire.jobs import EventOut, JobOut

STREAM = "text/event-stream"
END = "end"  # the type of a stream's last event
ENDED = ("succeeded", "failed", "cancelled")
QUIET_SECONDS = 60.0  # without even a heartbeat; then the connection is taken for dead


class _Log:
    """How far a log has been read."""

    def __init__(self, job_id: str, after: int) -> None:
        self.job_id, self.after = job_id, after
        self.cursor: str | None = None  # of a server that gives pages
        self.ended = False  # the job had, before the page that comes next
        self.over = False

    def call(self) -> Call:
        """Ask for what comes next."""
        headers = {"Accept": f"{STREAM}, application/json;q=0.5"}
        if self.after:
            headers["Last-Event-ID"] = str(self.after)
        call = get("jobs", self.job_id, "events", after=self.cursor)
        return call.having(headers, read_seconds=QUIET_SECONDS)

    def take(self, events: list[EventOut]) -> Steps[None]:
        """Emit what is new."""
        for event in events:
            if event.seq > self.after:
                self.after = event.seq
                yield Emit(event)


def follow(job_id: str, after: int, *, every: float, patience: float) -> Steps[None]:
    """Emit each event behind number `after`, as it comes, until the job has ended.

    Goes on behind the last event when a connection breaks. Raises ApiError, or
    httpx.TransportError when nothing has come for `patience` seconds.
    """
    log, backoff = _Log(job_id, after), Backoff(patience)
    while not log.over:
        pause: float | None
        try:
            response: httpx.Response = yield Open(log.call())
            if response.is_error:
                pause = backoff.pause(response) if response.status_code in PASSING else None
                if pause is None:
                    raise error_of(response)
            elif response.headers.get("Content-Type", "").startswith(STREAM):
                yield from _streamed(response, log, backoff)
                return
            else:
                yield from _paged(response, log, patience)
                backoff.restart()
                pause = 0.0 if log.ended else every
        except httpx.TransportError:
            pause = backoff.pause()
            if pause is None:
                raise
        if not log.over:
            yield Pause(pause)


def _streamed(response: httpx.Response, log: _Log, backoff: Backoff) -> Steps[None]:
    """What one connection brings. Raises httpx.TransportError when it breaks off."""
    parser = Parser()
    while chunk := (yield Read()):
        backoff.restart()
        for sent in parser.feed(chunk):
            if sent.type == END:
                log.over = True
                return
            with expected(response):
                event = read(EventOut, json.loads(sent.data))
            yield from log.take([event])
    raise httpx.RemoteProtocolError("The stream of events broke off.")


def _paged(response: httpx.Response, log: _Log, patience: float) -> Steps[None]:
    """One page. The log is over with the last page that was asked for after the job's end."""
    body = bytearray()
    while chunk := (yield Read()):
        body += chunk
    with expected(response):
        page = read(Page[EventOut], json.loads(body))
    yield from log.take(page.data)
    log.cursor = page.next_cursor or log.cursor
    if page.has_more:
        return
    log.over = log.ended
    if not log.ended:
        state = yield from answer(get("jobs", log.job_id), patience)
        with expected(state):
            log.ended = read(JobOut, state.json()).status in ENDED
