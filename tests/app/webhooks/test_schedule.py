"""When a delivery is tried again: by a table."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.webhooks.schedule import delay, retry_after

MOMENT = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
HOUR = 3600.0
TABLE = [5, 300, 1800, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR, None]


def test_the_schedule_is_the_standards() -> None:
    assert [delay("job.failed", failures, None, 0.5) for failures in range(1, 11)] == TABLE


@pytest.mark.parametrize(("draw", "seconds"), [(0, 240), (0.25, 270), (0.5, 300), (1, 360)])
def test_jitter_is_a_fifth_either_way(draw: float, seconds: float) -> None:
    assert delay("job.failed", 2, None, draw) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("failures", "asked", "seconds"),
    [(1, 60, 60), (3, 60, 1800), (1, 0, 5), (1, 10**12, 24 * HOUR), (10, 60, None)],
)
def test_what_the_receiver_asks_for_is_waited_for_within_reason(
    failures: int, asked: float, seconds: float | None
) -> None:
    assert delay("job.failed", failures, asked, 0.5) == seconds


def test_a_ping_is_tried_once() -> None:
    assert delay("ping", 1, 60, 0.5) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120),
        ("0", 0),
        ("9" * 50, 999_999_999_999),
        ("Wed, 06 May 2026 07:10:09 GMT", 120),
        ("Wed, 06 May 2026 07:10:09 -0000", 120),
        ("Wed, 06 May 2026 07:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\u0661", None),
        ("", None),
        ("Wed, 99 May 2026 07:10:09 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, MOMENT) == seconds
