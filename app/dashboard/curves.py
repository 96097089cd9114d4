"""A job's log as curves and lines, read on from where it was last read."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from app.dashboard.charts import Points
from app.dashboard.visit import Visit
from tdmr.wire.base import Page
from tdmr.wire.jobs import EventOut

MOST_POINTS = 400  # of a curve: then every second is left out
LINES = 60
PIECE = 100


@dataclass
class Curve:
    """Points of one quantity over the steps; thinned out evenly when there are many."""

    points: Points = field(default_factory=list)
    stride: int = 1
    count: int = 0

    def add(self, x: float, y: float) -> None:
        """Add a point; a step that was done before, by an attempt that was lost, begins anew."""
        while self.points and self.points[-1][0] >= x:
            self.points.pop()
        if self.count % self.stride == 0:
            self.points.append((x, round(y, 6)))
        self.count += 1
        if len(self.points) > MOST_POINTS:
            self.points, self.stride = self.points[::2], self.stride * 2


class JobLog:
    """What the log of one job says, as far as it has been read."""

    def __init__(self, job_id: str, batch_size: int) -> None:
        self._path = f"/v1/jobs/{job_id}/events"
        self._batch = batch_size
        self._cursor: str | None = None
        self._last: tuple[str, int, datetime] | None = None
        self.curves: dict[str, dict[str, Curve]] = {}  # by stage and quantity
        self.lines: list[str] = []
        self.entries = 0

    async def read(self, visit: Visit) -> int:
        """Read on; how many entries have been read in all."""
        while True:
            page = await visit.get(Page[EventOut], self._path, after=self._cursor, limit=PIECE)
            self._cursor = page.next_cursor
            for entry in page.data:
                self._take(entry)
            if not page.has_more:
                return self.entries

    def shown(self, stage: str, names: tuple[str, ...] = ()) -> dict[str, Points]:
        """The curves of a stage, those of `names` or all, as they are drawn."""
        found = self.curves.get(stage, {})
        return {
            name: list(curve.points) for name, curve in found.items() if not names or name in names
        }

    def _take(self, entry: EventOut) -> None:
        self.entries += 1
        data = entry.data
        if entry.type == "progress":
            self._progress(entry)
        else:
            said = data.get("message") or (data.get("failure") or {}).get("detail") or ""
            self._say(entry, f"{entry.type} {said}".strip())

    def _progress(self, entry: EventOut) -> None:
        data = entry.data
        stage, step = (data.get("stage") or {}).get("name", ""), data.get("step")
        numbers = {**data.get("losses", {}), **data.get("measures", {})}
        if step is None or not numbers:
            return
        last, self._last = self._last, (stage, step, entry.at)
        curves = self.curves.setdefault(stage, {})
        for name, value in numbers.items():
            curves.setdefault(name, Curve()).add(step, value)
        if last is not None and last[0] == stage and step > last[1] and entry.at > last[2]:
            speed = (step - last[1]) * self._batch / (entry.at - last[2]).total_seconds()
            curves.setdefault("images per second", Curve()).add(step, speed)

    def _say(self, entry: EventOut, text: str) -> None:
        self.lines.append(f"{entry.at:%H:%M:%S}  {text}")
        del self.lines[:-LINES]
