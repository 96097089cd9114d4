"""The demo's job over several seeds: the figures that README shows.

    make bench-digits SEEDS=5
    make bench-digits SEEDS=5 ARGS="--only odd"

Each seed draws other training images, other views and other initial weights, the same for every
method: the comparison is paired. The trained methods have the same steps, batch, optimiser,
weight average and augmentation; the student alone draws fresh views at every step. Nothing is
chosen on held-out images: the method's defaults were settled on images with even numbers, so
`--only odd` repeats everything on images that no choice has seen. Writes
benchmarks/results/digits.json and docs/digits.svg (with `--only odd`: digits_odd of both).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import tdmr
from benchmarks.machine import commit, machine, write_result
from benchmarks.picture import draw
from demo import digits, settings
from tdmr.config import ExportOptions
from tdmr.suite.statistics import Paired, paired

NO_FORMATS = ExportOptions(formats=())
METHODS = ("probe", "scratch", "kd", "tdmr")
PICTURES = Path(__file__).parent.parent / "docs"
HALVES = {"all": slice(None), "odd": slice(1, None, 2)}


def one(shots: int, seed: int, only: str) -> dict[str, Any]:
    """Accuracy and seconds of every method for one seed."""
    places = np.arange(digits.COUNT)[HALVES[only]]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        digits.write(root / "data", shots, seed, places)
        metrics = tdmr.distill(
            root / "data",
            foundation=settings.FOUNDATION,
            student=settings.STUDENT,
            out=root / "out",
            options=settings.options(seed).model_copy(
                update={"exports": NO_FORMATS, "audit": False}
            ),
            device="cpu",
        ).metrics
    rows = {**metrics["baselines"], "tdmr": metrics}
    return {
        "seed": seed,
        "shots": shots,
        "accuracy": {name: rows[name]["accuracy"] for name in METHODS},
        "seconds": {
            **{name: rows[name]["seconds"] for name in METHODS if name != "tdmr"},
            "tdmr": metrics["seconds"]["total"],
        },
        "foundation_forwards": metrics["foundation"]["forwards"],
        "cache_bytes": metrics["cache"]["bytes"],
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means, and TDMR against each of the others, at one number of shots."""
    columns = {m: [run["accuracy"][m] for run in runs] for m in METHODS}
    return {
        "shots": runs[0]["shots"],
        "mean": {m: mean(values) for m, values in columns.items()},
        "tdmr_minus": {
            m: asdict(paired(columns["tdmr"], columns[m])) for m in METHODS if m != "tdmr"
        },
        "seconds": {m: mean(run["seconds"][m] for run in runs) for m in METHODS},
    }


def show(console: Console, found: list[dict[str, Any]]) -> None:
    """Print the summaries."""
    table = Table("shots", *METHODS, "TDMR - student alone", "TDMR - plain KD")
    for row in found:
        against = [row["tdmr_minus"][name] for name in ("scratch", "kd")]
        table.add_row(
            str(row["shots"]),
            *(f"{row['mean'][m]:.4f}" for m in METHODS),
            *(str(Paired(**difference)) for difference in against),
        )
    console.print(table)


def main() -> None:
    """Run, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shots", type=int, nargs="+", default=[settings.SHOTS])
    parser.add_argument("--only", choices=HALVES, default="all")
    given = parser.parse_args()
    console = Console(width=140)
    runs: list[dict[str, Any]] = []
    for shots in given.shots:
        for seed in range(given.seeds):
            runs.append(one(shots, seed, given.only))
            console.print(shots, seed, runs[-1]["accuracy"], runs[-1]["seconds"])
    found = [summary([r for r in runs if r["shots"] == shots]) for shots in given.shots]
    show(console, found)
    name = "digits" if given.only == "all" else f"digits_{given.only}"
    picture = PICTURES / f"{name}.svg"
    stored = {
        "command": "python -m benchmarks.digits " + " ".join(sys.argv[1:]),
        "commit": commit(),
        "machine": machine(),
        "summary": found,
        "runs": runs,
    }
    results = write_result(name, stored)
    picture.parent.mkdir(exist_ok=True)
    draw([run for run in runs if run["shots"] == given.shots[0]], picture)
    console.print(f"Stored in {results} and {picture}")


if __name__ == "__main__":
    main()
