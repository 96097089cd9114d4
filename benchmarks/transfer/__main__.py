"""TDMR against seven other ways to train the same student, over paired seeds.

    make bench-transfer            # hours; goes on where it was stopped
    FAST=1 make bench-transfer     # the same code, smaller, in at most 5 minutes on 2 cores

All methods get the same steps, rate and augmentation; five of them are run on some draws once more
as their folds of the training images would have it. What is measured is one half of the digits,
on which nothing was developed, and drawn patterns. Rows are kept as they come in
benchmarks/results/transfer_rows.jsonl; table, JSON and picture are made from all rows there are
(`--report` makes them again without running anything, `--minutes` stops starting new work).
`--choose` compares, on the other half of the digits, recipes of TDMR, and the settings that
five methods might be trained in (choices.json).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

# Before torch loads OpenMP: spinning threads are slow on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console
from rich.progress import Progress

from benchmarks.machine import commit
from benchmarks.transfer import choosing, grid, report
from benchmarks.transfer.ledger import Ledger
from benchmarks.transfer.work import Unit, measure

RESULTS = Path(__file__).parent.parent / "results"


def units() -> Iterator[Unit]:
    """What to measure, in order."""
    for block in grid.blocks():
        for draw in block.draws():
            yield Unit(block.kind, draw, block.methods)


def choices() -> Iterator[Unit]:
    """Settings, and recipes beside their rivals, on images that no result is measured on."""
    settings = tuple(grid.named(m, setting) for m in grid.FEW for setting in grid.SETTINGS)
    foundation = grid.FOUNDATIONS["transformer"]
    for seeds, names in (
        (grid.SETTING_SEEDS, settings),
        (grid.CHOICE_SEEDS, (grid.AS_IT_IS, grid.READING)),
        (grid.CHOICE_SEEDS, (*grid.RECIPES, *grid.RIVALS)),
    ):
        for seed in seeds:
            for shots in grid.CHOICE_SHOTS:
                for student in grid.STUDENTS.values():
                    draw = grid.Draw("digits", foundation, student, shots, seed)
                    yield Unit(grid.CHOICE, draw, names)


def run(
    wanted: Iterator[Unit], ledger: Ledger, until: float, processes: int, console: Console
) -> None:
    """Measure what isn't measured yet; rows are kept as their unit ends."""
    todo = [unit for unit in wanted if unit.without(ledger)]
    context = multiprocessing.get_context("spawn")
    with (
        Progress(console=console) as bar,
        tempfile.TemporaryDirectory() as cache,
        ProcessPoolExecutor(processes, mp_context=context) as pool,
    ):
        task = bar.add_task("units", total=len(todo))
        running: set[Future[list[dict[str, Any]]]] = set()
        while todo or running:
            while todo and len(running) < processes and time.monotonic() < until:
                unit = todo.pop(0).without(ledger)
                if unit:
                    running.add(pool.submit(measure, unit, Path(cache)))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                for row in future.result():
                    ledger.add({**row, "commit": commit()})
                bar.advance(task)


def main() -> None:
    """Choose, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--report", action="store_true", help="only make the report again")
    parser.add_argument(
        "--choose", action="store_true", help="compare recipes and settings instead"
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="start no new work after these")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    console = Console(width=150)
    name = ("choices" if given.choose else "transfer") + ("_fast" if grid.FAST else "")
    ledger = Ledger(given.results / f"{name}_rows.jsonl")
    until = time.monotonic() + 60 * given.minutes
    if not given.report:
        wanted = choices() if given.choose else units()
        run(wanted, ledger, until, given.processes, console)
    write = choosing.write if given.choose else report.write
    write(ledger.rows, given.results, name, sys.argv[1:], console)


if __name__ == "__main__":
    main()
