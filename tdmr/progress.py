"""Progress through steps that take their own time."""

from __future__ import annotations

from collections.abc import Callable

PARTS = 100  # that a step is told in


class Steps:
    """Tells `on_step` how far `count` steps have come, in hundredths of a step.

    Each is announced by `begin`, before it; what it does may call `part`.
    """

    def __init__(self, count: int, on_step: Callable[[int, int], None]) -> None:
        self._count = count
        self._on_step = on_step
        self._begun = 0

    def begin(self) -> None:
        """The next step begins; those before it are done."""
        self._begun += 1
        self.part(0, 1)

    def part(self, done: int, total: int) -> None:
        """Of the step that has begun, `done` of `total` parts are done, all but a moment's work."""
        whole = PARTS * (self._begun - 1) + min(PARTS * done // total, PARTS - 1)
        self._on_step(whole, PARTS * self._count)

    def end(self) -> None:
        """All are done."""
        self._on_step(PARTS * self._count, PARTS * self._count)
