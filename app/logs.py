"""The log: one line per event on standard error, each with the id of the request it is about.

Everything that a request does, also on threads, and everything that a worker does for a job that
it ordered, is under that id.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog

REQUEST: ContextVar[str | None] = ContextVar("request_id", default=None)


@contextmanager
def under(request_id: str | None) -> Iterator[None]:
    """Until the end of the block, and in threads that are given its context, lines have this id."""
    token = REQUEST.set(request_id)
    try:
        yield
    finally:
        REQUEST.reset(token)


def set_up() -> None:
    """Write readable lines to a terminal, and JSON anywhere else; never a frame's variables."""
    terminal = sys.stderr.isatty()
    plain = structlog.dev.plain_traceback
    last = (
        structlog.dev.ConsoleRenderer(exception_formatter=plain)
        if terminal
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_request,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.format_exc_info]),
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def add_request(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog's: the request's id, where there is a request."""
    # A variable of our own: structlog's way of binding costs as much as a look at the database.
    if (request_id := REQUEST.get()) is not None:
        line.setdefault("request_id", request_id)
    return line
