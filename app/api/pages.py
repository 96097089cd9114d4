"""Pages: keyset, with an opaque cursor that names the last thing seen."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import Query, Response

from app.errors import ErrorItem, InvalidError

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=100, description="Things on one page.")]


def _cursor(kind: str) -> Any:
    return Query(
        max_length=200,
        description="The page before's `next_cursor`; opaque.",
        json_schema_extra={"format": kind},
    )


After = Annotated[str | None, _cursor("cursor")]
AfterNumber = Annotated[str | None, _cursor("number-cursor")]

_ID = re.compile(r"[a-z]+_[0-9a-f]{28,32}")
_NUMBER = re.compile(r"[0-9]{1,12}")


def encode(place: str) -> str:
    """A cursor behind `place`."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def after_id(cursor: str | None) -> str | None:
    """The id that a cursor names. Raises InvalidError."""
    return None if cursor is None else _decode(cursor, _ID)


def after_number(cursor: str | None) -> int:
    """The number that a cursor names, 0 without one. Raises InvalidError."""
    return 0 if cursor is None else int(_decode(cursor, _NUMBER))


def _decode(cursor: str, shape: re.Pattern[str]) -> str:
    try:
        place = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        place = ""
    if not shape.fullmatch(place):
        raise InvalidError(
            "The cursor isn't one of ours.",
            [
                ErrorItem(
                    pointer="/query/after",
                    code="invalid_cursor",
                    detail="Take next_cursor of the page before, as it is.",
                )
            ],
        )
    return place


def cut(found: Sequence[Item], limit: int) -> tuple[Sequence[Item], bool]:
    """The page itself, of one thing more than it holds, and whether there are more."""
    return found[:limit], len(found) > limit


def link_next(response: Response, path: str, query: dict[str, str | int | None]) -> None:
    """Say where the next page is (RFC 8288)."""
    text = urlencode({name: value for name, value in query.items() if value is not None})
    response.headers["Link"] = f'<{path}?{text}>; rel="next"'
