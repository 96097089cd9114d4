"""/compare: students by accuracy against what they cost, and which of them are worth having."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from app.dashboard.charts import COLOURS, axis, base, figure
from app.dashboard.forms import box, label, member, select
from app.dashboard.frame import page
from app.dashboard.pages.student import accuracy
from app.dashboard.parts import Tag, count, link, row, size, table, tag
from app.dashboard.visit import Visit
from app.plans import pareto
from app.students import latencies
from tdmr.wire.base import Page
from tdmr.wire.students import StudentOut, StudentSummary

MOST = 50
COSTS = {
    "latency_ms": "Latency of one image, p50, ms",
    "file_bytes": "ONNX file, MB",
    "params": "Parameters, millions",
}
SCALES = {"latency_ms": 1.0, "file_bytes": 1e6, "params": 1e6}


@dataclass(frozen=True)
class Figures:
    """What a student is compared by; None for what wasn't measured."""

    id: str
    name: str
    accuracy: float | None
    interval: list[float] | None
    machine: str | None
    latency_ms: float | None
    file_bytes: float | None
    params: float | None

    @classmethod
    def of(cls, found: StudentOut) -> Figures:
        """A student's figures, those of its ONNX file."""
        measured = latencies.of_student(found.metrics)
        return cls(
            id=found.id,
            name=f"{found.architecture} ({found.id[-4:]})",
            accuracy=found.accuracy,
            interval=found.interval,
            machine=measured.machine if measured else None,
            latency_ms=measured.p50_ms if measured else None,
            file_bytes=measured.file_bytes if measured else None,
            params=found.params,
        )

    def point(self, cost: str, machine: str | None) -> pareto.Point | None:
        """Accuracy and cost in the cost's unit; latencies are those of one machine alone."""
        value: float | None = getattr(self, cost)
        elsewhere = cost == "latency_ms" and self.machine != machine
        if self.accuracy is None or value is None or elsewhere:
            return None
        return self.accuracy, value / SCALES[cost]


def machine_of(rows: list[Figures]) -> str | None:
    """The machine that measured the most of them: latencies compare on one alone."""
    found = Counter(each.machine for each in rows if each.machine is not None)
    return max(found, key=lambda name: (found[name], name), default=None)


@page("/compare", "Compare")
async def compare(visit: Visit) -> None:
    """The newest students, of which any can be left out."""
    listed = (await visit.get(Page[StudentSummary], "/v1/students", limit=MOST)).data
    found = await asyncio.gather(
        *(visit.get(StudentOut, f"/v1/students/{each.id}") for each in listed)
    )
    rows = [Figures.of(each) for each in found]
    if not rows:
        with tag("section", "card"):
            tag("p", "hint", "No students yet: they are compared here once there are some.")
        return
    Comparison(rows).draw()


class Comparison:
    """A plane of accuracy and cost, and the same as a table."""

    def __init__(self, rows: list[Figures]) -> None:
        self._rows, self._shown = rows, {each.id for each in rows}
        self._machine = machine_of(rows)
        self._cost = "params" if self._machine is None else "latency_ms"
        with tag("section", "card"):
            with tag("div", "actions"):
                label("cost", "Against")
                select(COSTS, self._cost, self._choose).props('id="cost"').style("width:auto")
            with figure("Accuracy against cost"):
                self._chart = ui.echart({"series": []}).classes("chart")
            self._said = tag("p", "hint", "")
        with tag("section", "card"):
            tag("h2", text="Students")
            self._table()

    def draw(self) -> None:
        """Draw those that aren't left out."""
        rows = [each for each in self._rows if each.id in self._shown]
        points = [each.point(self._cost, self._machine) for each in rows]
        best = dict(zip((each.id for each in rows), pareto.front(points), strict=True))
        self._chart.options.clear()
        self._chart.options.update(plane(rows, points, self._cost))
        self._chart.update()
        self._said.say(self._about(points))
        for each in self._rows:
            self._marks[each.id].say("on the front" if best.get(each.id) else "")

    def _about(self, points: list[pareto.Point | None]) -> str:
        where = f"Latencies of {self._machine}. " if self._cost == "latency_ms" else ""
        missing = points.count(None)
        return where + (f"Without {missing} that were not measured so." if missing else "")

    def _choose(self, cost: str) -> None:
        self._cost = cost
        self.draw()

    def _table(self) -> None:
        columns = ["Shown", "Student", "Accuracy (95 % interval)", "p50", "ONNX", "Parameters", ""]
        self._marks: dict[str, Tag] = {}
        body = table("Students compared", columns)
        with body:
            for each in self._rows:
                with row([]):
                    with tag("td"):
                        self._tick(each)
                    with tag("td"):
                        link(each.name, f"/students/{each.id}")
                    tag("td", text=accuracy(each.accuracy, each.interval))
                    tag("td", text="—" if each.latency_ms is None else f"{each.latency_ms:.2f} ms")
                    tag("td", text=size(each.file_bytes))
                    tag("td", text=count(each.params))
                    self._marks[each.id] = tag("td", text="")

    def _tick(self, each: Figures) -> None:
        def chosen(ticked: bool) -> None:
            member(self._shown, each.id)(ticked)
            self.draw()

        box(chosen, ticked=True).props(f'aria-label="Show {each.name}"')


def plane(rows: list[Figures], points: list[pareto.Point | None], cost: str) -> dict[str, Any]:
    """Points with the size of their files, and the front as a line."""
    biggest = max((each.file_bytes or 0.0 for each in rows), default=0.0) or 1.0
    found = [(each, point) for each, point in zip(rows, points, strict=True) if point is not None]
    dots = [
        {
            "name": each.name,
            "value": _place(point),
            "symbolSize": 10 + 22 * ((each.file_bytes or 0.0) / biggest) ** 0.5,
        }
        for each, point in found
    ]
    on_front = pareto.front([point for _, point in found])
    best = [point for (_, point), on in zip(found, on_front, strict=True) if on]
    line = [_place(point) for point in sorted(best, key=lambda point: point[1])]
    named = {"show": len(dots) <= 12, "formatter": "{b}", "position": "top", "color": "#808a99"}
    middle = {"nameLocation": "middle", "nameGap": 26}
    return base() | {
        "tooltip": {"trigger": "item", "formatter": "{b}: {c}", "confine": True},
        "xAxis": axis(type="value", scale=True, name=COSTS[cost]) | middle,
        "yAxis": axis(type="value", scale=True, name="accuracy, %"),
        "grid": {"left": 52, "right": 40, "top": 34, "bottom": 48},
        "series": [
            {"name": "front", "type": "line", "step": "end", "data": line, "showSymbol": False,
             "lineStyle": {"color": COLOURS[1], "type": "dashed"}, "silent": True},
            {"name": "students", "type": "scatter", "data": dots, "label": named,
             "itemStyle": {"color": COLOURS[0], "opacity": 0.85}},
        ],
    }  # fmt: skip


def _place(point: pareto.Point) -> list[float]:
    accuracy, cost = point
    return [round(cost, 4), round(100 * accuracy, 2)]
