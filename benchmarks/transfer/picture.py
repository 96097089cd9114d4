"""Draws the comparison: TDMR minus each other method, the ablations, and the views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.transfer.grid import FOUNDATIONS, STUDENTS

Tables = dict[str, dict[str, dict[str, Any]]]  # differences by group and name

VIEWS = "K = "
SPREAD = 0.5  # of the methods in one group
APART = 0.25  # the series of one name
NAMES = {
    "scratch": "student alone",
    "kd": "plain distillation",
    "fitnet": "FitNets",
    "aft": "AFT",
    "simkd": "SimKD",
    "rd": "one-stage RD",
    "kd_online": "foundation in the loop",
}


def draw_transfer(summary: dict[str, Any], path: Path) -> None:
    """Write an SVG of paired differences with their 95 % intervals, in points of accuracy."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tdmr"  # the same figures give the same file
    from matplotlib import pyplot as plt

    figure, ((shots, foundations), (ablated, fewer)) = plt.subplots(2, 2, figsize=(11, 8))
    differences = summary["tdmr_minus"]
    counts = sorted({int(s) for rows in differences.values() for s in rows})
    _against(shots, differences, {str(s): f"{s} shots" for s in counts})
    shots.set_title("Digits, transformer foundation, mean of the students", fontsize=10)
    shots.legend(frameon=False, fontsize=8, loc="upper right")
    differences = summary["tdmr_minus_by_foundation"]
    groups = sorted({name for rows in differences.values() for name in rows})
    _against(foundations, differences, {name: _group(name).replace(" ", "\n") for name in groups})
    foundations.set_title("Targets and foundations, mean of students and shots", fontsize=10)
    # Apart: one view alone costs so much that nothing else would be told from zero beside it.
    whole = {w: rows for w, rows in summary["ablations"].items() if len(rows) > 1}
    tables = {_group(where): rows for where, rows in whole.items()}
    _ablations(ablated, _chosen(tables, views=False))
    _views(fewer, _chosen(tables, views=True))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _group(name: str) -> str:
    """A target and models, as a label: "digits, letters_vit" as "digits, transformer"."""
    families = {
        model: family for models in (FOUNDATIONS, STUDENTS) for family, model in models.items()
    }
    words = [families.get(word, word) for word in name.split(", ")]
    return ", ".join(words).replace("cnn", "CNN")


def _against(axes: Any, differences: Tables, groups: dict[str, str]) -> None:
    """Differences by group, beside each other; `groups` gives the labels, in order."""
    shown = {m: rows for m, rows in differences.items() if rows}
    order = list(groups)
    for place, (method, rows) in enumerate(shown.items()):
        shift = SPREAD * (place / max(1, len(shown) - 1) - 0.5)
        points = [(order.index(name) + shift, row) for name, row in rows.items()]
        _bars(axes, points, NAMES[method], vertical=True, colour=f"C{list(NAMES).index(method)}")
    axes.axhline(0, color="#333", linewidth=0.8)
    for between in range(1, len(order)):
        axes.axvline(between - 0.5, color="#ddd", linewidth=0.8)
    axes.set_xticks(range(len(order)), groups.values())
    axes.set_ylabel("TDMR minus the other, points")
    axes.spines[["top", "right"]].set_visible(False)


def _chosen(tables: Tables, *, views: bool) -> Tables:
    return {
        target: {name: row for name, row in rows.items() if name.startswith(VIEWS) == views}
        for target, rows in tables.items()
    }


def _apart(count: int) -> list[float]:
    """Places of so many around 0, APART from each other."""
    return [APART * (place - (count - 1) / 2) for place in range(count)]


def _ablations(axes: Any, tables: Tables) -> None:
    names = list(dict.fromkeys(name for rows in tables.values() for name in rows))[::-1]
    for shift, (target, rows) in zip(_apart(len(tables)), tables.items(), strict=True):
        points = [(names.index(name) - shift, row) for name, row in rows.items()]
        _bars(axes, points, target, vertical=False)
    axes.axvline(0, color="#333", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("minus TDMR as it is, points")
    axes.set_title("Ablations, 5 shots", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _views(axes: Any, tables: Tables) -> None:
    names = list(dict.fromkeys(name for rows in tables.values() for name in rows))
    for shift, (target, rows) in zip(_apart(len(tables)), tables.items(), strict=True):
        points = [(names.index(name) + shift, row) for name, row in rows.items()]
        _bars(axes, points, target, vertical=True)
    axes.axhline(0, color="#333", linewidth=0.8)
    axes.set_xticks(range(len(names)), [name.removeprefix(VIEWS) for name in names])
    axes.set_xlabel("stored views per image")
    axes.set_ylabel("minus TDMR as it is, points")
    axes.set_title("Fewer views, 5 shots", fontsize=10)
    axes.legend(title="target, student", frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)


def _bars(
    axes: Any,
    points: list[tuple[float, Any]],
    label: str,
    *,
    vertical: bool,
    colour: str | None = None,
) -> None:
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
    style = {"fmt": "o", "markersize": 4, "capsize": 2, "label": label, "color": colour}
    if vertical:
        axes.errorbar(places, means, yerr=spread, **style)
    else:
        axes.errorbar(means, places, xerr=spread, **style)
