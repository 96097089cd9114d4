"""The storm, in full: `make storm` (KILLS=1000, SEED=0, REAL=50).

Kills workers and their jobs' processes at random, strikes on purpose, and judges what became of
everything that was ordered. Ends with a status other than 0 when a guarantee was broken. Writes
benchmarks/results/storm.json, or storm_fast.json when it was made smaller.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.machine import commit, machine, write_result
from benchmarks.storm import report
from benchmarks.storm.plan import QUICK, Plan
from benchmarks.storm.run import run


def main() -> None:
    """Run, print and store."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whose end takes all else along
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=Plan.kills)
    parser.add_argument("--real", type=int, help="of them of real trainings; default: one in 20")
    parser.add_argument("--seed", default=Plan.seed)
    parser.add_argument("--quick", action="store_true", help="everything else as the tests have it")
    parser.add_argument("--keep", type=Path, help="where to leave all files, to look at afterwards")
    given = parser.parse_args()
    real = given.kills // 20 if given.real is None else given.real
    chosen = replace(
        QUICK if given.quick else Plan(), kills=given.kills, real=real, seed=given.seed
    )
    # What the storm does to its servers is reported by the product's parts in this process too.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    console = Console(width=160)
    columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn())
    with (
        tempfile.TemporaryDirectory(prefix="tdmr-storm-") as folder,
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
    ):
        found = run(chosen, given.keep or Path(folder), progress)
    report.show(console, found)
    broken = report.broken(found)
    origin = {
        "command": "make storm" + "".join(f" {word}" for word in _changed(chosen)),
        "seed": chosen.seed,
        "commit": commit(),
        "machine": machine(),
    }
    full = chosen.kills >= Plan.kills and not given.quick
    result = {**report.summary(found), "broken": broken, **origin}
    path = write_result("storm" if full else "storm_fast", result)
    console.print(f"Stored in {path}")
    for each in broken:
        console.print(f"[red]broken[/red] {each}", highlight=False)
    sys.exit(bool(broken))


def _changed(chosen: Plan) -> list[str]:
    words = {"KILLS": "kills", "REAL": "real", "SEED": "seed"}
    return [
        f"{word}={getattr(chosen, name)}"
        for word, name in words.items()
        if getattr(chosen, name) != getattr(Plan, name)
    ]


if __name__ == "__main__":
    main()
