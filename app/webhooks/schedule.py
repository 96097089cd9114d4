"""When a delivery is tried again: the schedule that standardwebhooks.com suggests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from tdmr.wire.webhooks import PING

MINUTE, HOUR = 60.0, 3600.0
DELAYS = (5.0, 5 * MINUTE, 30 * MINUTE, *(hours * HOUR for hours in (2, 5, 10, 14, 20, 24)))
JITTER = 0.2  # of the delay, either way: those that failed together don't come back together
MAX_RETRY_AFTER = 24 * HOUR
DISABLE_AFTER = timedelta(days=5)  # of failures without one success


def delay(event_type: str, failures: int, retry_after: float | None, draw: float) -> float | None:
    """Seconds until the next try after so many failures; None: there is none.

    `draw` is random, from 0 to 1. What the receiver asks for (Retry-After) is never undercut. A
    ping is tried once: who sent it is looking.
    """
    if event_type == PING or failures > len(DELAYS):
        return None
    seconds = DELAYS[failures - 1] * (1 + JITTER * (2 * draw - 1))
    return max(seconds, min(retry_after or 0.0, MAX_RETRY_AFTER))


def retry_after(value: str | None, moment: datetime) -> float | None:
    """Seconds that a Retry-After header (RFC 9110, section 10.2.3) asks for; None: it says nothing.

    It may name seconds or a date; what is neither counts as absent.
    """
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (aware - moment).total_seconds())
