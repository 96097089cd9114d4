"""Rate limits: so many requests of a cost class for each key, so many wrong keys for each address.

Counted in this process's memory, or in Redis where there is a broker, then for all servers
together. A Redis that is away refuses nobody: nothing is counted until it answers again.
"""

from __future__ import annotations

import ipaddress
import math
import time
from enum import StrEnum

import limits
import structlog
from limits.errors import StorageError
from limits.storage import RedisStorage, Storage
from limits.strategies import SlidingWindowCounterRateLimiter

from app.access.window import MemoryWindows
from app.errors import RateLimitedError
from app.settings import Settings

AWAY_SECONDS = 5.0  # for which a Redis that didn't answer isn't asked again
PATIENCE_SECONDS = 0.25
FAILURES = "failures"

log = structlog.get_logger(__name__)


class Cost(StrEnum):
    """What a request costs the service: each class has a limit of its own."""

    READ = "read"
    WRITE = "write"
    UPLOAD = "upload"
    PREDICT = "predict"


class Limiter:
    """What keys and addresses have asked for lately; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self.remote = settings.broker_url is not None  # then asking may wait for the network
        self._rates = {
            name: _rate(getattr(settings, f"rate_{name}"), name) for name in (*Cost, FAILURES)
        }
        self._strategy = SlidingWindowCounterRateLimiter(_storage(settings.broker_url))
        self._away_until = 0.0  # above 0: Redis didn't answer, and isn't asked before

    def take(self, cost: Cost, key_id: str) -> None:
        """Count a request of a key. Raises RateLimitedError when it's one too many."""
        if not self._counted(cost, key_id):
            raise self._refusal(cost, key_id, "This key makes too many requests of this class")

    def failed(self, address: str) -> None:
        """Count a key that isn't valid. Raises RateLimitedError when there are too many.

        Only wrong keys are counted and only they are refused: a valid one always gets through.
        """
        who = network(address)
        if not self._counted(FAILURES, who):
            raise self._refusal(FAILURES, who, "Too many keys that aren't valid come from here")

    def _counted(self, name: str, who: str) -> bool:
        """Whether there was room for one more."""
        rate = self._rates[name]
        if rate is None or time.monotonic() < self._away_until:
            return True
        try:
            found = self._strategy.hit(rate, who)
        except StorageError as error:
            self._went_away(error)
            return True
        if self._away_until:
            self._away_until = 0.0
            log.info("rate_limits_on")
        return found

    def _went_away(self, error: StorageError) -> None:
        if not self._away_until:  # once, not for each request
            log.warning("rate_limits_off", error=str(error.storage_error))
        self._away_until = time.monotonic() + AWAY_SECONDS

    def _refusal(self, name: str, who: str, what: str) -> RateLimitedError:
        rate = self._rates[name]
        assert rate is not None
        try:
            wait = self._strategy.get_window_stats(rate, who).reset_time - time.time()
        except StorageError:  # it went away just now; the next request will find so too
            wait = AWAY_SECONDS
        return RateLimitedError(
            f"{what}: {rate} is the limit.",
            headers={"Retry-After": str(max(1, math.ceil(wait)))},
        )


def network(address: str) -> str:
    """Whom an address counts for: itself, or its /64 in IPv6, which is one customer's."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a socket without an address, or a test's client
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _rate(text: str | None, name: str) -> limits.RateLimitItem | None:
    if text is None:
        return None
    rate = limits.parse(text)
    # Classes whose rates are alike are still counted apart.
    return type(rate)(rate.amount, rate.multiples, namespace=name)


def _storage(broker_url: str | None) -> Storage:
    if broker_url is None:
        return MemoryWindows()
    return RedisStorage(
        broker_url,
        key_prefix="tdmr-limits",
        wrap_exceptions=True,
        socket_connect_timeout=PATIENCE_SECONDS,
        socket_timeout=PATIENCE_SECONDS,
    )
