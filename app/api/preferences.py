"""Prefer: wait=SECONDS (RFC 7240): one answer that takes a while for many that say nothing new."""

from __future__ import annotations

import re

from fastapi import Request

LONGEST_WAIT = 60

_WAIT = re.compile(r"\s*wait\s*=\s*\"?([0-9]{1,6})\"?\s*", re.IGNORECASE)

# A header that an endpoint reads by itself, for the OpenAPI document.
PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "example": "wait=5",
    "description": "`wait=SECONDS`, at most 60: with `If-None-Match` the answer waits until "
    "something has changed, without it until the job has ended.",
}


def wait_seconds(request: Request) -> int:
    """How long the client would wait; 0 where it says nothing of it. What else it says is left."""
    for preference in request.headers.get("prefer", "").split(","):
        if found := _WAIT.fullmatch(preference.partition(";")[0]):
            return min(int(found[1]), LONGEST_WAIT)
    return 0
