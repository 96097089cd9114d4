"""Safetensors files, good and bad, written without the library."""

from __future__ import annotations

import json
from typing import Any

Header = dict[str, Any]


def header(**changed: Any) -> Header:
    """Two small tensors, 24 bytes in all."""
    found = {
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "I64", "shape": [], "data_offsets": [16, 24]},
    }
    for name, value in changed.items():
        found[name] = {**found.get(name, {}), **value} if isinstance(value, dict) else value
    return found


def pack(head: Header | bytes, numbers: bytes = bytes(24), length: int | None = None) -> bytes:
    """A file; `length` is what it says of its header's size, where that isn't true."""
    raw = head if isinstance(head, bytes) else json.dumps(head).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + numbers


GOOD = pack(header(__metadata__={"format": "pt"}))
