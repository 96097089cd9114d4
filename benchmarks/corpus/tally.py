"""What became of a corpus, counted, and every promise that was broken."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchmarks.corpus.sandbox import MAX_EXTRA_BYTES, MAX_SECONDS, Outcome


@dataclass
class Tally:
    """The figures so far; `broken` says what each unkept promise was, by the upload's name."""

    hostile: int = 0
    refused: int = 0
    at_door: int = 0
    good: int = 0
    good_refused: int = 0
    damaged: int = 0
    damaged_refused: int = 0
    written_outside: int = 0
    left_behind: int = 0
    worst_seconds: float = 0.0
    worst_seconds_by: str = ""
    worst_clock_seconds: float = 0.0
    worst_extra_bytes: int = 0
    worst_extra_by: str = ""
    codes: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def add_hostile(self, name: str, code: str, outcome: Outcome) -> bool:
        """An upload that must be refused with that code; gives whether every promise was kept."""
        before = len(self.broken)
        self.hostile += 1
        self.at_door += outcome.at_door
        self.codes[code] += 1
        if outcome.refused(code):
            self.refused += 1
        else:
            said = outcome.crash or ", ".join(outcome.codes) or "taken"
            self.broken.append(f"{name}: {said} instead of {code}")
        self._note(name, outcome)
        self._note_cost(name, outcome)
        return len(self.broken) == before

    def add_good(self, name: str, outcome: Outcome) -> bool:
        """An upload that must be taken; gives whether every promise was kept."""
        before = len(self.broken)
        self.good += 1
        if not outcome.ok:
            self.good_refused += 1
            said = outcome.crash or ", ".join(outcome.codes)
            self.broken.append(f"{name}: refused for {said}")
        self._note(name, outcome)
        return len(self.broken) == before

    def add_damaged(self, name: str, version: str | None, outcome: Outcome) -> bool:
        """A damaged upload: refused, or still that version; gives whether that was so."""
        before = len(self.broken)
        self.damaged += 1
        self.damaged_refused += not outcome.ok
        if outcome.crash is not None:
            self.broken.append(f"{name}: {outcome.crash}")
        elif outcome.ok and outcome.version != version:
            self.broken.append(f"{name}: taken with other images than it had")
        self._note(name, outcome)
        self._note_cost(name, outcome)
        return len(self.broken) == before

    def _note(self, name: str, outcome: Outcome) -> None:
        if outcome.outside:
            self.written_outside += 1
            self.broken.append(f"{name}: wrote {', '.join(outcome.outside)}")
        if outcome.left:
            self.left_behind += 1
            self.broken.append(f"{name}: left {', '.join(outcome.left)}")

    def _note_cost(self, name: str, outcome: Outcome) -> None:
        self.worst_clock_seconds = max(self.worst_clock_seconds, outcome.seconds)
        if outcome.cpu_seconds > self.worst_seconds:
            self.worst_seconds, self.worst_seconds_by = outcome.cpu_seconds, name
        if outcome.cpu_seconds > MAX_SECONDS:
            self.broken.append(f"{name}: took {outcome.cpu_seconds:.1f} s of processor time")
        extra = outcome.extra_bytes
        if extra is not None and extra > self.worst_extra_bytes:
            self.worst_extra_bytes, self.worst_extra_by = extra, name
        if extra is None or extra > MAX_EXTRA_BYTES:
            self.broken.append(f"{name}: took {extra or 'an unknown number of'} more bytes")

    def figures(self) -> dict[str, Any]:
        """As they are stored."""
        return {
            "hostile": self.hostile,
            "refused": self.refused,
            "good": self.good,
            "good_refused": self.good_refused,
            "written_outside": self.written_outside,
            "left_behind": self.left_behind,
            "worst_seconds": round(self.worst_seconds, 3),
            "worst_extra_bytes": self.worst_extra_bytes,
            "worst_seconds_by": self.worst_seconds_by,
            "worst_extra_by": self.worst_extra_by,
            "worst_clock_seconds": round(self.worst_clock_seconds, 3),
            "refused_at_door": self.at_door,
            "damaged": self.damaged,
            "damaged_refused": self.damaged_refused,
            "codes": dict(sorted(self.codes.items())),
        }
