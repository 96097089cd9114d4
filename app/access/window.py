"""Counters of a sliding window in this process's memory, for the strategies of `limits`.

The library's own memory storage starts a thread for every 10 ms in which it is asked, and costs
three times as much; this one counts as its storage in Redis does, and forgets as it goes.
"""

from __future__ import annotations

import threading
import time
from typing import NoReturn

from limits.storage import SlidingWindowCounterSupport, Storage

TIDY_SECONDS = 60.0  # between two looks for counters that count nothing any more


class Window:
    """What one key did in a window, and in the one before."""

    __slots__ = ("before", "count", "number", "seconds")

    def __init__(self, number: int, seconds: float) -> None:
        self.number, self.seconds, self.count, self.before = number, seconds, 0, 0

    def move(self, number: int) -> None:
        """Go on to the window `number`."""
        self.before = self.count if number == self.number + 1 else 0
        self.number, self.count = number, 0


class MemoryWindows(Storage, SlidingWindowCounterSupport):
    """A window for every key; an asking costs the same however much was counted."""

    STORAGE_SCHEME = None  # made by name, never by address
    base_exceptions = ()  # nothing in here fails

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[str, Window] = {}
        self._lock = threading.Lock()
        self._tidied = time.monotonic()

    def __len__(self) -> int:
        return len(self._windows)

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Count `amount` more, unless that is over `limit`."""
        moment = time.monotonic()
        with self._lock:
            window = self._at(key, expiry, moment)
            rest = 1.0 - moment % expiry / expiry  # of the window before, still in sight
            if int(window.before * rest) + window.count + amount > limit:
                return False
            window.count += amount
            return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """The count and the seconds left to be seen of the window before, and of this one."""
        moment = time.monotonic()
        rest = expiry - moment % expiry
        with self._lock:
            window = self._at(key, expiry, moment)
            return window.before, rest, window.count, rest + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget a key."""
        self.clear(key)

    def _at(self, key: str, expiry: int, moment: float) -> Window:
        number = int(moment // expiry)
        window = self._windows.get(key)
        if window is None:
            self._tidy(moment)
            window = self._windows[key] = Window(number, expiry)
        elif window.number != number:
            window.move(number)
        return window

    def _tidy(self, moment: float) -> None:
        """Forget what is out of sight, so that memory follows the keys of the last minutes."""
        if moment - self._tidied < TIDY_SECONDS:
            return
        self._tidied = moment
        self._windows = {
            key: window
            for key, window in self._windows.items()
            if moment // window.seconds <= window.number + 1
        }

    def get(self, key: str) -> int:
        """What a key did in its newest window."""
        window = self._windows.get(key)
        return 0 if window is None else window.count

    def get_expiry(self, key: str) -> float:
        """When a key's newest window ends, in the system's time."""
        window = self._windows.get(key)
        ends = 0.0 if window is None else (window.number + 1) * window.seconds - time.monotonic()
        return time.time() + max(0.0, ends)

    def incr(self, key: str, expiry: int, amount: int = 1) -> NoReturn:
        """Fixed windows aren't offered."""
        raise NotImplementedError("only sliding windows are counted here")

    def check(self) -> bool:
        """Memory answers."""
        return True

    def reset(self) -> int:
        """Forget every key; how many there were."""
        with self._lock:
            number = len(self._windows)
            self._windows.clear()
            return number

    def clear(self, key: str) -> None:
        """Forget a key."""
        with self._lock:
            self._windows.pop(key, None)
