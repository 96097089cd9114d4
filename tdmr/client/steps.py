"""What the client does, as steps that something else carries out: no input or output here.

An operation is a generator: it yields what it wants done (a request sent, a pause, work on the
disk) and is sent what came of it. `tdmr.client.drivers` carries the same operations out, once by
blocking and once by awaiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx

from tdmr.client.calls import Call
from tdmr.client.errors import error_of, expected
from tdmr.client.reading import read
from tdmr.client.retries import PASSING, Backoff
from tdmr.wire.base import Page

T = TypeVar("T")
Parse = Callable[[Any], T]
HOLD = 20  # seconds that the server is asked to hold an answer back that wouldn't be news


@dataclass(frozen=True)
class Send:
    """Send it; the response, read."""

    call: Call


@dataclass(frozen=True)
class Open:
    """Send it; the response, whose body is still to be read, unless it's an error's."""

    call: Call


@dataclass(frozen=True)
class Read:
    """The next bytes of what was opened last; b"" at its end."""


@dataclass(frozen=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Call it, where it may block; what it gives."""

    do: Callable[[], Any]


@dataclass(frozen=True)
class Emit:
    """Hand a value out to whoever iterates."""

    value: Any


@dataclass(frozen=True)
class Done(Generic[T]):
    """The operation's result; said by those that carry it out."""

    value: T


Step = Send | Open | Read | Pause | Work | Emit
Steps = Generator[Step, Any, T]


def answer(call: Call, patience: float) -> Steps[httpx.Response]:
    """The answer, tried again where that may help. Raises ApiError or httpx.TransportError."""
    backoff = Backoff(patience if call.repeatable else 0.0)
    while True:
        pause = None
        try:
            response: httpx.Response = yield Send(call)
        except httpx.TransportError:
            pause = backoff.pause()
            if pause is None:
                raise
        else:
            if not response.is_error:
                return response
            if response.status_code in PASSING:
                pause = backoff.pause(response)
            if pause is None:
                raise error_of(response)
        yield Pause(pause)


def ask(call: Call, parse: Parse[T], patience: float) -> Steps[T]:
    """The answer's JSON, parsed; None where it has no body."""
    response = yield from answer(call, patience)
    with expected(response):
        return parse(response.json() if response.content else None)


def pages(call: Call, parse: Parse[T], patience: float) -> Steps[None]:
    """Emit every row of a list, page by page, as they are asked for."""
    while True:
        response = yield from answer(call, patience)
        with expected(response):
            page = read(Page[Any], response.json())
            rows = [parse(row) for row in page.data]
        for row in rows:
            yield Emit(row)
        if not page.has_more or page.next_cursor is None:
            return
        call = call.having(params={"after": page.next_cursor})


@dataclass(frozen=True)
class When:
    """How long to watch, how often to ask, and how long to put up with trouble: in seconds."""

    timeout: float | None
    every: float
    patience: float


def watch(
    call: Call,
    parse: Parse[T],
    over: Callable[[T], bool],
    on_change: Callable[[T], None] | None,
    when: When,
) -> Steps[T]:
    """Ask until it's over; `on_change` is shown each answer that differs from the one before.

    A server that holds answers back (RFC 7240, `Prefer: wait`) is asked again at once, another one
    every so many seconds. Raises TimeoutError.
    """
    deadline = time.monotonic() + (float("inf") if when.timeout is None else when.timeout)
    found: T | None = None
    headers: dict[str, str] = {}
    while True:
        if headers:
            left = max(0.0, deadline - time.monotonic())
            headers["Prefer"] = f"wait={int(min(HOLD, left))}"
            call = call.having(headers, read_seconds=HOLD + 30.0)
        response = yield from answer(call, when.patience)
        if found is None or response.status_code != 304:
            with expected(response):
                news = parse(response.json())
            if news != found and on_change is not None:
                on_change(news)
            found = news
            if "ETag" in response.headers:
                headers["If-None-Match"] = response.headers["ETag"]
        if over(found):
            return found
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{call.path} isn't over after {when.timeout:g} seconds.")
        if "wait" not in response.headers.get("Preference-Applied", ""):
            yield Pause(min(when.every, left))
