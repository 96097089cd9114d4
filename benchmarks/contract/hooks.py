"""What Schemathesis can't know of this API: how its own formats look, and what there is to find."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import schemathesis
from hypothesis import strategies as st

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")

# Ids of things that are there: {parameter: [id, …]}.
KNOWN: dict[str, list[str]] = json.loads(os.environ.get("TDMR_CONTRACT_KNOWN", "{}"))


def _cursor(place: str) -> str:
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _base64(size: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=size, max_size=size).map(lambda some: base64.b64encode(some).decode())


_HEX = st.text("0123456789abcdef", min_size=28, max_size=28)
_METADATA = st.text(min_size=1, max_size=20).filter(str.isprintable)
for name, strategy in {
    "cursor": _HEX.map(lambda digits: _cursor(f"job_{digits}")),
    "number-cursor": st.integers(0, 10**6).map(lambda number: _cursor(str(number))),
    "tus-checksum": st.one_of(
        _base64(32).map("sha256 {}".format), _base64(20).map("sha1 {}".format)
    ),
    "tus-metadata": _METADATA.map(lambda text: "name " + base64.b64encode(text.encode()).decode()),
}.items():
    schemathesis.openapi.format(name, strategy)


@schemathesis.hook
def map_path_parameters(_: Any, parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Every other time, something that is there."""
    return None if parameters is None else {k: _known(k, v) for k, v in parameters.items()}


@schemathesis.hook
def map_headers(_: Any, headers: dict[str, Any] | None) -> dict[str, Any] | None:
    """Nobody waits for a job that nobody works on."""
    return {**headers, "Prefer": "wait=0"} if headers and "Prefer" in headers else headers


@schemathesis.hook
def map_body(_: Any, body: Any) -> Any:
    """The same for what an order names."""
    if isinstance(body, dict) and "dataset_id" in body:
        return {**body, "dataset_id": _known("dataset_id", body["dataset_id"])}
    return body


def _known(name: str, given: Any) -> Any:
    ids = KNOWN.get(name)
    place = hash(str(given))
    return ids[place % len(ids)] if ids and isinstance(given, str) and place % 2 else given
