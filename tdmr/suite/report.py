"""The benchmark's tables and progress bars."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from tdmr.suite.cost import Cost, costs
from tdmr.suite.plan import Cell
from tdmr.suite.results import AGAINST, METHODS, Results

ASSUMED = "estimated for one modern data-centre GPU, not measured"


def cost_table(left: Iterable[Cell], overrides: dict[str, Any]) -> Table:
    """The cells that are left, seeds taken together, and what they will cost."""
    totals: dict[tuple[str, ...], Cost] = defaultdict(Cost)
    seeds: dict[tuple[str, ...], int] = defaultdict(int)
    for cell, cost in costs(left, overrides):
        key = (cell.dataset, str(cell.shots), cell.foundation, cell.student)
        totals[key] += cost
        seeds[key] += 1
    whole = sum(totals.values(), Cost())
    shown = Table(
        title=f"{sum(seeds.values())} cells to run; hours are {ASSUMED}",
        caption="Students share a foundation's features: the first to need them pays.",
    )
    for name in ("dataset", "shots", "foundation", "student"):
        shown.add_column(name, overflow="fold")
    for name in ("seeds", "foundation forwards", "student steps", "hours", "GB kept"):
        shown.add_column(name, justify="right")
    for row, cost in totals.items():
        shown.add_row(*row, str(seeds[row]), *_numbers(cost))
    shown.add_section()
    shown.add_row("all", "", "", "", str(sum(seeds.values())), *_numbers(whole))
    return shown


def _numbers(cost: Cost) -> tuple[str, str, str, str]:
    return (
        f"{cost.forwards:,}",
        f"{cost.steps:,}",
        f"{cost.hours:,.2f}",
        f"{cost.bytes / 1e9:,.2f}",
    )


def results_table(results: Results) -> Table:
    """Mean accuracy over seeds, and TDMR against the baselines: paired, 95 % Student interval."""
    shown = Table(title="Accuracy on all test images, mean over seeds")
    for name in ("dataset", "shots", "foundation", "student"):
        shown.add_column(name, overflow="fold")
    for name in (*METHODS, *(f"tdmr - {name} (95 %), wins" for name in AGAINST)):
        shown.add_column(name, justify="right")
    for group in results.summary:
        shown.add_row(
            group.dataset,
            str(group.shots),
            group.foundation,
            group.student,
            *(f"{group.mean[name]:.4f}" for name in METHODS),
            *(str(group.tdmr_minus[name]) for name in AGAINST),
        )
    return shown


class WorkBar:
    """Bars for downloads and indexing, one per thing worked on."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> WorkBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """Draw `done` of `total` bytes or images of `what`."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)
