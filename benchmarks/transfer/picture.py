"""Draws the comparison: TDMR minus each other method by shots, the ablations, and the views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

VIEWS = "K = "
NAMES = {
    "scratch": "student alone",
    "kd": "plain distillation",
    "fitnet": "FitNets",
    "aft": "AFT",
    "simkd": "SimKD",
    "rd": "one-stage RD",
}


def draw_transfer(summary: dict[str, Any], path: Path) -> None:
    """Write an SVG of paired differences with their 95 % intervals, in points of accuracy."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tdmr"  # the same figures give the same file
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.2), width_ratios=(6, 4, 3))
    _against(left, summary["tdmr_minus"])
    # Apart: one view alone costs so much that nothing else would be told from zero beside it.
    views = {n: row for n, row in summary["ablations"].items() if n.startswith(VIEWS)}
    _ablations(middle, {n: row for n, row in summary["ablations"].items() if n not in views})
    _views(right, views)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _against(axes: Any, differences: dict[str, dict[str, dict[str, Any]]]) -> None:
    shown = {m: rows for m, rows in differences.items() if rows}
    shots = sorted({int(s) for rows in shown.values() for s in rows})
    for place, (method, rows) in enumerate(shown.items()):
        shift = 0.8 * (place / max(1, len(shown) - 1) - 0.5) if len(shown) > 1 else 0
        points = [(shots.index(int(s)) + shift, row) for s, row in rows.items()]
        _bars(axes, points, NAMES.get(method, method), vertical=True)
    axes.axhline(0, color="#333", linewidth=0.8)
    axes.set_xticks(range(len(shots)), [f"{s} shots" for s in shots])
    axes.set_ylabel("TDMR minus the other, points")
    axes.set_title("Digits, transformer foundation, mean of the students", fontsize=10)
    axes.legend(frameon=False, fontsize=8, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)


def _ablations(axes: Any, rows: dict[str, dict[str, Any]]) -> None:
    names = list(rows)[::-1]
    _bars(axes, [(n, rows[name]) for n, name in enumerate(names)], "", vertical=False)
    axes.axvline(0, color="#333", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("minus TDMR as it is, points")
    axes.set_title("Ablations, 5 shots", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _views(axes: Any, rows: dict[str, dict[str, Any]]) -> None:
    _bars(axes, list(enumerate(rows.values())), "", vertical=True)
    axes.axhline(0, color="#333", linewidth=0.8)
    axes.set_xticks(range(len(rows)), [name.removeprefix(VIEWS) for name in rows])
    axes.set_xlabel("stored views per image")
    axes.set_ylabel("minus TDMR as it is, points")
    axes.set_title("Fewer views, 5 shots", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _bars(axes: Any, points: list[tuple[float, Any]], label: str, *, vertical: bool) -> None:
    places = [place for place, _ in points]
    means = [100 * row["mean"] for _, row in points]
    spread = [
        [
            100 * (row["mean"] - (row["low"] if row["low"] is not None else row["mean"]))
            for _, row in points
        ],
        [
            100 * ((row["high"] if row["high"] is not None else row["mean"]) - row["mean"])
            for _, row in points
        ],
    ]
    if vertical:
        axes.errorbar(places, means, yerr=spread, fmt="o", markersize=4, capsize=2, label=label)
    else:
        axes.errorbar(means, places, xerr=spread, fmt="o", markersize=4, capsize=2, color="#0b5cad")
