"""Conditional requests (RFC 9110, section 13): a strong ETag on every GET, and 304."""

from __future__ import annotations

import hashlib

from fastapi import Request, Response


def etag_of(content: bytes) -> str:
    """A strong ETag for exactly these bytes."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names `etag`; the comparison is the weak one."""
    if header is None:
        return False
    named = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in named or "*" in named


def not_modified(etag: str) -> Response:
    """304: the client has it already."""
    return Response(status_code=304, headers={"ETag": etag})


def answer(request: Request, response: Response) -> Response:
    """Give a GET its ETag, or 304 when the client's copy is still good."""
    body = getattr(response, "body", None)
    if request.method != "GET" or response.status_code != 200 or not isinstance(body, bytes):
        return response
    if "etag" not in response.headers:
        response.headers["ETag"] = etag_of(body)
    etag = response.headers["etag"]
    if matches(request.headers.get("if-none-match"), etag):
        return not_modified(etag)
    return response
