"""What docs/webhooks.md tells people to run does what it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from app.webhooks.signing import Secret, headers, new_secret
from tdmr.wire.webhooks import EventType

PAGE = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """The names that the page's Python defines."""
    found: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, found)
    return found


def test_both_ways_to_verify_take_ours_and_nothing_else(shown: dict[str, Any]) -> None:
    secret, old, body = new_secret(), new_secret(), b'{"type":"ping"}'
    is_ours: Callable[..., bool] = shown["is_ours"]
    signing = [Secret(secret=secret), Secret(secret=old)]
    made = headers("msg_1", datetime.now(UTC), body.decode(), signing)
    for each in (secret, old):
        assert shown["handle"](each, made, body) == {"type": "ping"}
        assert is_ours(each, made, body)
    assert not is_ours(new_secret(), made, body)
    assert not is_ours(secret, made, body + b" ")
    stale = headers("msg_1", datetime.now(UTC) - timedelta(hours=1), body.decode(), signing)
    assert not is_ours(secret, stale, body)


def test_every_type_of_event_is_described() -> None:
    assert [each for each in (*get_args(EventType), "ping") if f"`{each}`" not in PAGE] == []
