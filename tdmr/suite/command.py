"""`tdmr bench`, behind its options: plan, show the cost or run, and print the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from tdmr.errors import OptionsError, TdmrError
from tdmr.jobdir import ProgressLine
from tdmr.suite import bench, plan, report, sources
from tdmr.suite.plan import Cell
from tdmr.suite.results import Results

SUITE = "standard"
WIDTH = 200  # of a table that doesn't go to a terminal


def request(
    suite: str,
    *,
    data: Path,
    out: Path,
    datasets: list[str] | None,
    foundations: list[str] | None,
    students: list[str] | None,
    shots: list[str] | None,
    seeds: int,
    download: bool,
    device: str,
    options: str,
) -> bench.Request:
    """The command line's texts as a request; None stands for the suite's own choice.

    Raises OptionsError for a suite, shots or options that can't be read.
    """
    if suite != SUITE:
        raise OptionsError(f"There is no suite {suite!r}.", suggestion=f"Use {SUITE}.")
    return bench.Request(
        data=data,
        out=out,
        datasets=plan.parse_names(datasets, list(plan.RECIPES)),
        foundations=plan.parse_names(foundations, plan.FOUNDATIONS),
        students=plan.parse_names(students, plan.STUDENTS),
        shots=plan.parse_shots(shots),
        seeds=seeds,
        download=download,
        device=device,
        overrides=_overrides(options),
    )


def _overrides(text: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except ValueError as error:
        raise OptionsError(f"--options isn't JSON: {error}.") from error
    if not isinstance(found, dict):
        raise OptionsError("--options isn't a JSON object.")
    return found


class Bar(Protocol):
    """What shows the progress of one distillation."""

    def show(self, line: ProgressLine) -> None:
        """Draw one line."""


def execute(
    wanted: bench.Request,
    *,
    dry_run: bool,
    console: Console,
    bar: Callable[[], AbstractContextManager[Bar]],
) -> Results:
    """Print the cells left and their cost, or measure them and print the results.

    Tables go to standard output, everything else to `console`. Raises as `bench.plan`,
    `bench.gather` and `bench.run` do.
    """
    page = Console()
    page = page if page.is_terminal else Console(width=WIDTH)
    results, left = bench.plan(wanted)
    if dry_run:
        page.print(report.cost_table(left, wanted.overrides))
        for name in dict.fromkeys(cell.dataset for cell in left):
            source = sources.require(name)
            size = f"{source.bytes / 1e9:.2f} GB"
            page.print(f"{name}: {size} to download. {source.terms} {source.homepage}")
        return results

    @contextmanager
    def watching(cell: Cell, number: int, total: int) -> Iterator[bench.OnProgress]:
        console.print(f"{number}/{total}: {cell}", highlight=False)
        try:
            with bar() as shown:
                yield shown.show
        except TdmrError as error:
            console.print(f"[red]failed:[/red] {error}", highlight=False)
            raise

    with report.WorkBar(console) as work:
        folders = bench.gather(wanted, left, work.show)
    results = bench.run(wanted, results, left, folders, watching)
    page.print(report.results_table(results))
    console.print(f"Results: {wanted.out}", highlight=False)
    return results
