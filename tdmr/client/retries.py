"""When to try again, and for how long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import httpx

from tdmr.client.errors import retry_after

PASSING = (429, 502, 503, 504)  # what another try may not meet again
FIRST, LONGEST = 0.2, 10.0  # seconds


class Backoff:
    """Exponential back-off with full jitter, never sooner than the server asks for.

    Trouble is put up with for `patience` seconds; `restart` begins them anew. Source: M. Brooker,
    "Exponential backoff and jitter", AWS Architecture Blog, 2015.
    """

    def __init__(
        self,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._patience, self._clock, self._dice = patience, clock, dice
        self.restart()

    def restart(self) -> None:
        """All is well again."""
        self._tries, self._deadline = 0, self._clock() + self._patience

    def pause(self, response: httpx.Response | None = None) -> float | None:
        """Seconds until the next try; None when that would be beyond patience."""
        ceiling = min(LONGEST, FIRST * 2 ** min(self._tries, 10))
        self._tries += 1
        stated = retry_after(response) if response is not None else None
        seconds = max(self._dice(0.0, ceiling), stated or 0.0)
        return None if self._clock() + seconds > self._deadline else seconds
