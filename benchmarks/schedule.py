"""Draws docs/schedule.svg: stage 2's weights over a training, forward, flat and reversed."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from tdmr.config import Direction, DistilOptions
from tdmr.schedule import Schedule

DIRECTIONS: tuple[Direction, ...] = ("forward", "flat", "reversed")
TAPS = 4
PICTURE = Path(__file__).parent.parent / "docs" / "schedule.svg"


def main() -> None:
    """Write the picture."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tdmr"  # the same figures give the same file
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(10, 2.9), sharey=True)
    for axis, direction in zip(axes, DIRECTIONS, strict=True):
        options = DistilOptions(depth=direction, width=direction, objective=direction)
        series = Schedule(options, TAPS).series()
        t = series.pop("t")
        bottom = [0.0] * len(t)
        for tap in range(TAPS):
            shares = series[f"tap {tap + 1}"]
            top = [b + s for b, s in zip(bottom, shares, strict=True)]
            axis.fill_between(t, bottom, top, color=plt.cm.Blues(0.2 + 0.18 * tap), linewidth=0)
            bottom = top
        axis.plot(t, [w / options.proxy for w in series["proxy"]], "k-", label="proxy terms")
        axis.plot(t, series["width"], "k:", label="open width")
        axis.set_title(f"{direction}", fontsize=10)
        axis.set_xlabel("progress of the training")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("share")
    axes[0].legend(fontsize=8, loc="lower left")
    figure.suptitle("Blue: shares of the taps, shallow (light) to deep (dark)", fontsize=9)
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
