"""JSON bodies, read strictly: the right type, within the cap, and JSON as RFC 8259 has it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from fastapi import Request
from starlette.types import Message

from app.errors import NotJsonError, TooLargeError, UnsupportedMediaTypeError


def media_type(request: Request) -> str:
    """The body's media type, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().casefold()


def content_length(request: Request) -> int | None:
    """The declared size of the body, where one is declared."""
    value = request.headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() else None


def is_empty(request: Request) -> bool:
    """Whether the request comes without a body (RFC 9112, section 6.3)."""
    return not content_length(request) and "transfer-encoding" not in request.headers


async def strict_json(request: Request, max_bytes: int) -> Request:
    """A request whose body has been read and is JSON. Raises an AppError that says what it isn't.

    NaN, Infinity and repeated names are refused: two readers would understand them differently.
    """
    kind = media_type(request)
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaTypeError("Send JSON, with Content-Type: application/json.")
    body = await read(request, max_bytes, "A JSON body")
    try:
        json.loads(body, parse_constant=_refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise NotJsonError(f"The body isn't JSON: {_reason(error)}.") from error

    async def replay() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, replay)


async def read(request: Request, max_bytes: int, what: str) -> bytes:
    """The whole body, in memory. Raises TooLargeError, as soon as that shows."""
    too_large = TooLargeError(f"{what} may have at most {max_bytes} bytes.")
    if (content_length(request) or 0) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} isn't a JSON value")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same name twice")
    return found


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return "it isn't UTF-8"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
