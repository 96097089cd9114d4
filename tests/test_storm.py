"""The storm at the size of a test: 50 kills, every strike once, and every guard switched off once.

What is measured is only checked against bounds that a slow machine keeps too.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from benchmarks.storm import report
from benchmarks.storm.plan import QUICK
from benchmarks.storm.run import Found, run
from benchmarks.storm.verdict import FIGURES
from tdmr import failpoint


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A whole storm, in every arena."""
    with Progress(console=Console(quiet=True)) as progress:
        return run(QUICK, tmp_path_factory.mktemp("storm"), progress)


@pytest.fixture(scope="module")
def result(found: Found) -> dict[str, Any]:
    """What `make storm` would store."""
    stored: dict[str, Any] = json.loads(json.dumps(report.summary(found)))
    return stored


def test_every_guarantee_is_kept(found: Found, result: dict[str, Any]) -> None:
    assert report.broken(found) == []
    assert {name: result[name] for name in FIGURES} == dict.fromkeys(FIGURES, 0)


def test_enough_was_killed(result: dict[str, Any]) -> None:
    assert result["kills"] >= 50
    assert result["real_kills"] >= 5
    assert all(kills >= 20 for kills in result["kills_by_arena"].values())
    assert set(result["kills_by_target"]) == {"worker", "process", "both"}


def test_every_failpoint_was_come_to(result: dict[str, Any]) -> None:
    assert result["failpoints"]["names"] == sorted(failpoint.POINTS)


@pytest.mark.parametrize(
    ("guard", "figure"),
    [("fencing", "stale_writes"), ("lease", "early_sweeps"), ("outbox", "unfinished")],
)
def test_a_guard_that_is_off_is_noticed(result: dict[str, Any], guard: str, figure: str) -> None:
    assert result["negative_controls"][guard] is True
    assert result["caught_by"][guard][figure] > 0


def test_latencies_and_idle_workers_are_measured(result: dict[str, Any]) -> None:
    assert 60 < result["restart_p99_seconds"] < 300
    assert 0 < result["cancel_p99_seconds"] < QUICK.cancel
    assert 0 < result["cancel_deaf_p99_seconds"] < QUICK.cancel
    assert all(0 < seconds < 60 for seconds in result["start_median_seconds"].values())
    assert result["idle"]["rss_mb"] < 150
    assert result["idle"]["torch"] is False


def test_it_is_shown(found: Found) -> None:
    console = Console(width=200, file=io.StringIO(), record=True)
    report.show(console, found)
    shown = console.export_text()
    assert "storm, SQLite" in shown
    assert "BROKEN" not in shown
    assert "NOT NOTICED" not in shown


def test_a_broken_guarantee_is_said(found: Found, tmp_path: Path) -> None:
    """The judge's figures come through to the end: here a lost job, put in by hand."""
    found.storms[0].verdict.broken("lost", "a job that was made up")
    try:
        assert report.broken(found) == ["storm, SQLite: lost: a job that was made up"]
        assert report.summary(found)["lost"] == 1
    finally:
        found.storms[0].verdict.figures["lost"] -= 1
        found.storms[0].verdict.details.pop()
