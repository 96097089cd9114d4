"""One line of the storm's table: what was done to an arena, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.storm.arena import Arena, Kill
from benchmarks.storm.verdict import Verdict, judge


@dataclass
class Row:
    """The verdict on an arena, the figures of its scenario, and the promises that weren't kept."""

    name: str
    verdict: Verdict
    figures: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    restarts: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return self.verdict.good and not self.failed

    def expect(self, kept: object, promise: str) -> None:
        """Note a promise that wasn't kept."""
        if not kept:
            self.failed.append(promise)


def conclude(arena: Arena, **figures: Any) -> Row:
    """Let everything come to its end, end the workers, and judge."""
    arena.settle()
    arena.close()
    return Row(arena.name, judge(arena), figures, kills=arena.kills)
