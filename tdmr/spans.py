"""Traces from a request to the process that trains: OpenTelemetry, sent as OTLP over HTTP.

Off until `send` is called with an endpoint; until then nothing of OpenTelemetry is imported, and a
span costs a look at a variable. What belongs to a span is told by a `traceparent` (W3C Trace
Context): it comes with a request, is kept with the job, and is given to the job's process as the
environment's TRACEPARENT.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tdmr.jobdir import ProgressLine

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"  # OpenTelemetry's own; a process is given it by its worker
TRACEPARENT = "TRACEPARENT"
TIMEOUT_SECONDS = 5.0  # for a collector to take what is sent; what it doesn't take is lost
NANOSECONDS = 10**9

# The span that is open, as a `traceparent` header has it.
PARENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
_sending: _Spans | None = None


def send(endpoint: str | None, service: str) -> None:
    """From now on, send spans as `service` to `endpoint`, or to what the environment says.

    With neither, none are made.
    """
    global _sending
    endpoint = endpoint or os.environ.get(ENDPOINT)
    if endpoint and _sending is None:
        _sending = _Spans(endpoint, service)


def end() -> None:
    """Send what is left, for at most some TIMEOUT_SECONDS, and no more."""
    global _sending
    if _sending is not None:
        _sending.close()
        _sending = None


def are_sent() -> bool:
    """Whether there are spans at all."""
    return _sending is not None


@contextmanager
def under(traceparent: str | None) -> Iterator[None]:
    """Until the end of the block, what is begun belongs to that span."""
    token = PARENT.set(traceparent)
    try:
        yield
    finally:
        PARENT.reset(token)


@contextmanager
def span(
    name: str,
    attributes: Mapping[str, Any] | None = None,
    *,
    parent: str | None = None,
    seconds: float = 0.0,
) -> Iterator[Any]:
    """A block as a span of `parent`, or of the one that is open, begun `seconds` ago.

    Gives OpenTelemetry's span, or None where none are sent. An error that leaves the block is the
    span's too.
    """
    if _sending is None:
        yield None
        return
    begun = _sending.begin(name, attributes or {}, parent or PARENT.get(), seconds)
    with begun as (made, inside), under(inside):
        yield made


def of_stages() -> Callable[[ProgressLine], None]:
    """A listener that makes a span of each stage of a job's process; the last word ends the last.

    In a process whose worker has given it a span to belong to.
    """
    parent = os.environ.get(TRACEPARENT)
    if parent is not None:
        send(None, "tdmr-process")
    stages = _Stages(parent)
    return stages.hear


class _Stages:
    def __init__(self, parent: str | None) -> None:
        self._parent = parent
        self._name: str | None = None
        self._began = time.monotonic()

    def hear(self, line: ProgressLine) -> None:
        """Notice where a stage ends."""
        if not are_sent() or line.event in ("checkpoint", "warning"):
            return
        now = line.stage.name if line.stage and line.event == "progress" else None
        if now == self._name:
            return
        if self._name is not None:
            took = time.monotonic() - self._began
            with span(f"stage {self._name}", parent=self._parent, seconds=took):
                pass
        self._name, self._began = now, time.monotonic()
        if now is None:
            end()


class _Spans:
    """OpenTelemetry, once it's wanted."""

    def __init__(self, endpoint: str, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation import tracecontext

        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=TIMEOUT_SECONDS)
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tdmr")
        self._wire = tracecontext.TraceContextTextMapPropagator()

    @contextmanager
    def begin(
        self, name: str, attributes: Mapping[str, Any], parent: str | None, seconds: float
    ) -> Iterator[tuple[Any, str | None]]:
        """A span, and the `traceparent` of what belongs to it."""
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        # An empty context around it: only PARENT says what belongs to what.
        around = self._wire.extract({"traceparent": parent} if parent else {}, Context())
        given = {key: value for key, value in attributes.items() if value is not None}
        began = time.time_ns() - round(seconds * NANOSECONDS)
        made = self._tracer.start_as_current_span(name, around, attributes=given, start_time=began)
        with made as opened:
            carried: dict[str, str] = {}
            self._wire.inject(carried, set_span_in_context(opened))
            yield opened, carried.get("traceparent")

    def close(self) -> None:
        self._provider.shutdown()
