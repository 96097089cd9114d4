"""Runs a whole storm: what is measured in quiet first, then everything else side by side."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID

from benchmarks.storm import procs
from benchmarks.storm.arena import GIVEN_UP
from benchmarks.storm.fleet import MARK, Zygote
from benchmarks.storm.plan import Plan
from benchmarks.storm.program import Program, Scenario
from benchmarks.storm.row import Row
from benchmarks.storm.services import Postgres
from benchmarks.storm.verdict import Verdict


@dataclass
class Found:
    """All that a storm has found."""

    plan: Plan
    storms: list[Row] = field(default_factory=list)
    scenarios: list[Row] = field(default_factory=list)
    controls: dict[str, Row] = field(default_factory=dict)
    idle: dict[str, dict[str, Any]] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)  # processes that outlived everything
    seconds: float = 0.0


def run(plan: Plan, root: Path, progress: Progress) -> Found:
    """The whole storm, below `root`."""
    found, began, mark = Found(plan), time.monotonic(), uuid.uuid4().hex
    GIVEN_UP.clear()
    with Postgres() as postgres:
        with Zygote(mark) as zygote:
            program = Program(plan, root, zygote, postgres, progress)
            with ThreadPoolExecutor(1) as pool, _together():
                measured = pool.submit(_measure, program, found)
                if plan.alone:
                    measured.result()
                _at_once(program, found)
                measured.result()
        time.sleep(1)
        found.left = [procs.named(pid) for pid in procs.marked(f"{MARK}={mark}")]
    found.seconds = round(time.monotonic() - began, 1)
    return found


def _measure(program: Program, found: Found) -> None:
    bar = program.progress.add_task("idle workers, starts, cancels", total=2)
    found.idle, found.starts = program.quiet()
    program.progress.advance(bar)
    cancels = program.cancels().items()
    found.scenarios += [_row(program, name, act, bar) for name, act in cancels]


def _at_once(program: Program, found: Found) -> None:
    storms, acts, guards = program.storms(), program.scenarios(), program.controls()
    bar = program.progress.add_task("scenarios and controls", total=len(acts) + len(guards))

    def start(pool: ThreadPoolExecutor, parts: dict[str, Scenario]) -> dict[str, Future[Row]]:
        place = None if parts is storms else bar
        return {n: pool.submit(_row, program, n, act, place) for n, act in parts.items()}

    with (
        ThreadPoolExecutor(2) as first,
        ThreadPoolExecutor(program.plan.lanes) as lanes,
        _together(),
    ):
        random, planned, off = start(first, storms), start(lanes, acts), start(lanes, guards)
        found.storms = [each.result() for each in random.values()]
        found.scenarios += [each.result() for each in planned.values()]
        found.controls = {guard: each.result() for guard, each in off.items()}


@contextmanager
def _together() -> Iterator[None]:
    """When the block ends early, as when the user has had enough, every thread does."""
    try:
        yield
    except BaseException:  # Ctrl-C too; raised again
        GIVEN_UP.set()
        raise


def _row(program: Program, name: str, act: Scenario, bar: TaskID | None) -> Row:
    """What came of a part; one that couldn't be seen through is a broken promise too."""
    began, progress = time.monotonic(), program.progress
    try:
        row = act()
    except Exception as error:  # a part that fails is a broken promise, and shown
        progress.console.print_exception()
        row = Row(name, Verdict(), failed=[f"{type(error).__name__}: {error}"])
    row.seconds = round(time.monotonic() - began, 1)
    if bar is not None:
        progress.advance(bar)
    if not progress.console.is_terminal:  # where the bars can't be seen
        progress.console.print(f"{row.name}: {row.seconds:.0f} s {row.verdict.caught}")
    return row
