"""Draws the paired seeds of the digits benchmark: one line per seed, one column per method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

LABELS = {
    "probe": "foundation's\nprobe",
    "scratch": "student\nalone",
    "kd": "plain\ndistillation",
    "tdmr": "TDMR\nstudent",
}


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Write an SVG of the runs' held-out accuracies, in percent."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tdmr"  # the same figures give the same file
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.4))
    columns = range(len(LABELS))
    for run in runs:
        values = [100 * run["accuracy"][name] for name in LABELS]
        axes.plot(columns, values, color="#9aa5b1", linewidth=1, marker="o", markersize=3)
    means = [100 * sum(r["accuracy"][n] for r in runs) / len(runs) for n in LABELS]
    axes.plot(columns, means, "D", color="#0b5cad", markersize=8, zorder=3)
    for column, mean in zip(columns, means, strict=True):
        axes.annotate(f"{mean:.1f}", (column, mean), xytext=(9, -3), textcoords="offset points")
    axes.set_xticks(columns, list(LABELS.values()))
    axes.set_ylabel("held-out accuracy, %")
    axes.set_title(f"{runs[0]['shots']} labelled digits per class; {len(runs)} paired seeds")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
