"""Traces (OpenTelemetry), from a request to the process that trains; off unless they are sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# The span that is open, as W3C's Trace Context writes it in a `traceparent` header.
PARENT: ContextVar[str | None] = ContextVar("traceparent", default=None)


@contextmanager
def under(traceparent: str | None) -> Iterator[None]:
    """Until the end of the block, what is begun belongs to that span."""
    token = PARENT.set(traceparent)
    try:
        yield
    finally:
        PARENT.reset(token)
