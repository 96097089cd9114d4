"""Options of the charts (Apache ECharts, which the dashboard's framework brings with it)."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from app.dashboard.parts import Tag, tag

Points = list[tuple[float, float]]
# Told apart by shape too: not everybody tells colours apart.
COLOURS = ["#3f73e0", "#d1750a", "#1a9a57", "#b04bc4", "#8a8f98", "#c4423c"]
DASHES = ["solid", "dashed", "dotted", "solid", "dashed", "dotted"]
SOFT = "#808a99"


class Lines:
    """Curves over the steps of a training, to which points are added without drawing anew."""

    def __init__(self, label: str, *, low: bool = False) -> None:
        self._names: list[str] = []
        value = axis(type="value", scale=True)
        options = base() | {"yAxis": value, "xAxis": axis(type="value", name="step")}
        options["dataZoom"] = [{"type": "inside"}]
        with figure(label):
            self.chart = ui.echart(options).classes("chart low" if low else "chart")

    def show(self, curves: dict[str, Points]) -> None:
        """Replace all curves."""
        self._names = list(curves)
        series = [line(name, points, n) for n, (name, points) in enumerate(curves.items())]
        legend = {"data": self._names, "show": len(series) > 1}
        # Kept for a tab that connects later; sent as a change, so that nothing jumps.
        self.chart.options["series"], self.chart.options["legend"]["data"] = series, self._names
        self.chart.run_chart_method("setOption", {"series": series, "legend": legend})


def figure(label: str) -> Tag:
    """What a chart stands in: pictures have a name for those who can't see them."""
    return tag("figure", "figure").props(f'role="img" aria-label="{label}"')


def line(name: str, points: Points, number: int = 0) -> dict[str, Any]:
    """One curve."""
    return {
        "name": name,
        "type": "line",
        "data": points,
        "showSymbol": len(points) < 2,
        "symbolSize": 5,
        "lineStyle": {"width": 2, "type": DASHES[number % len(DASHES)]},
        "itemStyle": {"color": COLOURS[number % len(COLOURS)]},
        "emphasis": {"disabled": True},
    }


def base() -> dict[str, Any]:
    """What all charts share."""
    return {
        "animation": False,
        "grid": {"left": 52, "right": 16, "top": 34, "bottom": 40},
        "legend": {"top": 0, "textStyle": {"color": SOFT}, "data": []},
        "tooltip": {"trigger": "axis", "confine": True},
        "textStyle": {"fontFamily": "system-ui, sans-serif"},
        "series": [],
    }


def axis(**more: Any) -> dict[str, Any]:
    """An axis that is read on light and dark ground."""
    return {
        "axisLabel": {"color": SOFT},
        "nameTextStyle": {"color": SOFT},
        "nameLocation": "end",
        "splitLine": {"lineStyle": {"color": "rgba(128,138,153,.2)"}},
        "axisLine": {"lineStyle": {"color": SOFT}},
        **more,
    }


def bars(label: str, names: list[str], columns: dict[str, list[int]]) -> None:
    """Counts by name, stacked."""
    options = base() | {
        "xAxis": axis(type="category", data=names),
        "yAxis": axis(type="value"),
        "legend": {"top": 0, "textStyle": {"color": SOFT}, "data": list(columns)},
        "series": [
            {
                "name": name,
                "type": "bar",
                "stack": "all",
                "data": counts,
                "itemStyle": {"color": COLOURS[n % len(COLOURS)]},
            }
            for n, (name, counts) in enumerate(columns.items())
        ],
    }
    with figure(label):
        ui.echart(options).classes("chart low")
