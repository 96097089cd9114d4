"""/compare: students by accuracy against what they cost, and which of them are worth having."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from app.dashboard.charts import COLOURS, axis, base, figure
from app.dashboard.frame import page
from app.dashboard.pages.student import accuracy
from app.dashboard.parts import Tag, count, link, row, size, table, tag
from app.dashboard.visit import Visit
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
    latency_ms: float | None
    file_bytes: float | None
    params: float | None

    @classmethod
    def of(cls, found: StudentOut) -> Figures:
        """A student's figures, those of its ONNX file."""
        formats = (found.metrics.get("exports") or {}).get("formats") or {}
        onnx = formats.get("onnx") or {}
        return cls(
            id=found.id,
            name=f"{found.architecture} ({found.id[-4:]})",
            accuracy=found.accuracy,
            interval=found.interval,
            latency_ms=(onnx.get("latency") or {}).get("p50_ms"),
            file_bytes=onnx.get("bytes"),
            params=found.params,
        )

    def cost(self, axis_name: str) -> float | None:
        """What it costs on an axis, in that axis's unit."""
        value: float | None = getattr(self, axis_name)
        return None if value is None else value / SCALES[axis_name]


def front(rows: list[Figures], cost: str) -> list[Figures]:
    """Those that no other beats: none is as accurate and as cheap, and better in one of both."""
    known = [each for each in rows if each.accuracy is not None and each.cost(cost) is not None]
    known.sort(key=lambda each: (each.cost(cost) or 0.0, -(each.accuracy or 0.0)))
    best: list[Figures] = []
    for each in known:
        if not best or (each.accuracy or 0.0) > (best[-1].accuracy or 0.0):
            best.append(each)
    return best


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
        self._rows, self._left_out = rows, set[str]()
        measured = any(each.latency_ms is not None for each in rows)
        self._cost = "latency_ms" if measured else "params"
        with tag("section", "card"):
            with tag("div", "actions"):
                tag("label", text="Against").props('for="cost"').style("margin:0")
                self._choice()
            with figure("Accuracy against cost"):
                self._chart = ui.echart({"series": []}).classes("chart")
        with tag("section", "card"):
            tag("h2", text="Students")
            self._table()

    def draw(self) -> None:
        """Draw those that aren't left out."""
        rows = [each for each in self._rows if each.id not in self._left_out]
        best = front(rows, self._cost)
        self._chart.options.clear()
        self._chart.options.update(plane(rows, best, self._cost))
        self._chart.update()
        for each in self._rows:
            self._marks[each.id].say("on the front" if each in best else "")

    def _choice(self) -> None:
        def chosen(event: Any) -> None:
            self._cost = event.args["value"]
            self.draw()

        box = tag("select").props('id="cost"').style("width:auto")
        with box:
            for name, label in COSTS.items():
                made = tag("option", text=label)
                made._props |= {"value": name} | ({"selected": True} if name == self._cost else {})
        box.on("change", chosen, js_handler="(e) => emit({value: e.target.value})")

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
        def chosen(event: Any) -> None:
            (self._left_out.discard if event.args["value"] else self._left_out.add)(each.id)
            self.draw()

        box = tag("input").props(f'type="checkbox" aria-label="Show {each.name}"')
        box._props["checked"] = True
        box.on("change", chosen, js_handler="(e) => emit({value: e.target.checked})")


def plane(rows: list[Figures], best: list[Figures], cost: str) -> dict[str, Any]:
    """Points with the size of their files, and the front as a line."""
    biggest = max((each.file_bytes or 0.0 for each in rows), default=0.0) or 1.0
    points = [
        {
            "name": each.name,
            "value": [round(each.cost(cost) or 0.0, 4), round(100 * each.accuracy, 2)],
            "symbolSize": 10 + 22 * ((each.file_bytes or 0.0) / biggest) ** 0.5,
        }
        for each in rows
        if each.accuracy is not None and each.cost(cost) is not None
    ]
    line = [
        [round(each.cost(cost) or 0.0, 4), round(100 * (each.accuracy or 0), 2)] for each in best
    ]
    label = {"show": len(points) <= 12, "formatter": "{b}", "position": "top", "color": "#808a99"}
    middle = {"nameLocation": "middle", "nameGap": 26}
    return base() | {
        "tooltip": {"trigger": "item", "formatter": "{b}: {c}", "confine": True},
        "xAxis": axis(type="value", scale=True, name=COSTS[cost]) | middle,
        "yAxis": axis(type="value", scale=True, name="accuracy, %"),
        "grid": {"left": 52, "right": 40, "top": 34, "bottom": 48},
        "series": [
            {"name": "front", "type": "line", "step": "end", "data": line, "showSymbol": False,
             "lineStyle": {"color": COLOURS[1], "type": "dashed"}, "silent": True},
            {"name": "students", "type": "scatter", "data": points, "label": label,
             "itemStyle": {"color": COLOURS[0], "opacity": 0.85}},
        ],
    }  # fmt: skip
