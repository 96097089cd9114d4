"""Pictures of an evaluation, as SVG: the same evaluation gives the same bytes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONFUSION, RELIABILITY, RISK = "confusion.svg", "reliability.svg", "risk_coverage.svg"
# Text stays text, in the reader's own fonts: class names can be of any script.
STYLE: Any = {"svg.hashsalt": "tdmr", "svg.fonttype": "none", "font.size": 9, "axes.grid": False}
MOST_COUNTS, MOST_NAMES = 20, 60  # classes up to which cells have numbers, and axes have names
LONGEST = 24  # characters of a class name
GROUND, MARK, FAINT = "#ffffff", "#1f5fa8", "#9a9a9a"


def draw(content: dict[str, Any], folder: Path) -> None:
    """Write confusion.svg, reliability.svg and risk_coverage.svg of evaluation.json's content."""
    from matplotlib import rc_context

    with rc_context(STYLE), _unknown_letters():
        for name, figure in (
            (CONFUSION, _confusion(content["confusion"])),
            (RELIABILITY, _reliability(content["reliability"], content["calibration"])),
            (RISK, _risk(content["risk_coverage"])),
        ):
            figure.savefig(folder / name, format="svg", metadata={"Date": None})


@contextmanager
def _unknown_letters() -> Iterator[None]:
    """Letters that matplotlib's own font lacks only cost it their exact width: see STYLE."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        yield


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=GROUND, layout="constrained")
    return figure, figure.add_subplot()


def _confusion(found: dict[str, Any]) -> Figure:
    """Rows are true classes; colour is the share of the row, numbers are images."""
    counts = np.array(found["counts"], dtype=np.int64)
    classes = len(counts)
    side = float(np.clip(3.0 + 0.28 * classes, 4.0, 18.0))
    figure, axes = _figure(side + 0.6, side)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if classes <= MOST_NAMES:
        names = [_short(name) for name in found["classes"]]
        axes.set_xticks(range(classes), names, rotation=90, parse_math=False)
        axes.set_yticks(range(classes), names, parse_math=False)
    if classes <= MOST_COUNTS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            ink = GROUND if shares[row, column] > 0.5 else "black"
            number = str(counts[row, column])
            axes.text(float(column), float(row), number, ha="center", va="center", color=ink)
    return figure


def _reliability(bins: dict[str, Any], calibration: dict[str, Any]) -> Figure:
    """Accuracy over confidence; a calibrated student's bars end on the diagonal."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), facecolor=GROUND, layout="constrained")
    titles = {
        "before": f"as trained: ECE {calibration['ece_before']:.3f}",
        "after": f"temperature {calibration['temperature']:.2f}: ECE "
        f"{calibration['ece_after']:.3f}",
    }
    for axes, (name, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
        rows = [row for row in bins[name] if row["images"]]
        width = bins[name][0]["high"]
        axes.bar(
            [row["low"] for row in rows],
            [row["accuracy"] for row in rows],
            width=width, align="edge", color=MARK, edgecolor=GROUND,
        )  # fmt: skip
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1)
        axes.plot(
            [row["confidence"] for row in rows], [row["accuracy"] for row in rows], "k.", ms=4
        )
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("confidence")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
    figure.axes[0].set_ylabel("accuracy")
    return figure


def _risk(found: dict[str, Any]) -> Figure:
    """The share of errors among the most confident images."""
    figure, axes = _figure(4.6, 3.4)
    coverage, risk = zip(*found["points"], strict=True)
    axes.plot(coverage, risk, color=MARK, marker="." if len(coverage) == 1 else None)
    axes.set_title(f"area {found['aurc']:.4f}", fontsize=9)
    axes.set_xlabel("coverage: share of images answered, the surest first")
    axes.set_ylabel("risk: share of errors")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(0.05, 1.05 * max(risk)))
    return figure


def _short(name: str) -> str:
    shown = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name
    )
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
