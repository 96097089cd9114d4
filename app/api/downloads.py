"""Downloads (RFC 9110, section 14): ranges, conditions, digests and names."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastapi import Request, Response
from starlette.responses import StreamingResponse

from app.api import conditional
from app.errors import RangeNotSatisfiableError

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)


@dataclass(frozen=True)
class Download:
    """Something to be had whole or in part."""

    name: str
    media_type: str
    length: int
    etag: str
    read: Callable[[int, int], Iterator[bytes]]
    sha256: str | None = None
    elsewhere: Callable[[], str | None] | None = None  # an address that opens it without a key


def respond(request: Request, download: Download) -> Response:
    """The whole, a part, word of where it is, or that the client has it already."""
    if conditional.matches(request.headers.get("if-none-match"), download.etag):
        return conditional.not_modified(download.etag)
    wanted = _range(request, download)
    start, stop = wanted or (0, download.length)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'attachment; filename="{download.name}"',
        "Content-Length": str(stop - start),
        "ETag": download.etag,
    }
    if download.sha256 is not None:
        digest = base64.b64encode(bytes.fromhex(download.sha256)).decode()
        headers["Repr-Digest"] = f"sha-256=:{digest}:"
    if not request.state.head and (address := download.elsewhere and download.elsewhere()):
        del headers["Content-Length"]
        again = {"Location": address, "Cache-Control": "no-store"}
        return Response(status_code=307, headers={**headers, **again})
    if wanted is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{download.length}"
    body = iter(()) if request.state.head else download.read(start, stop)
    status = 200 if wanted is None else 206
    return StreamingResponse(body, status, headers=headers, media_type=download.media_type)


def _range(request: Request, download: Download) -> tuple[int, int] | None:
    """The part asked for as (start, stop), or None for the whole.

    Several ranges, other units and broken headers are ignored, as the standard allows. Raises
    RangeNotSatisfiableError for a part that isn't there.
    """
    found = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if request.state.head or found is None or not any(found.groups()):  # parts are GET's alone
        return None
    if request.headers.get("if-range", download.etag) != download.etag:
        return None
    first, last = found.groups()
    if not first:  # the last so many bytes
        start, stop = max(0, download.length - int(last)), download.length
    else:
        start, stop = int(first), min(int(last or download.length) + 1, download.length)
        if last and int(last) < start:
            return None
    if start >= stop:
        raise RangeNotSatisfiableError(
            f"The file has {download.length} bytes.",
            headers={"Content-Range": f"bytes */{download.length}"},
        )
    return start, stop
