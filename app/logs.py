"""The log: one line per event on standard error."""

from __future__ import annotations

import logging
import sys

import structlog


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
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.format_exc_info]),
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
