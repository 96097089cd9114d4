"""What a storm says at its end: a table for people, and a result for machines."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.storm import controls
from benchmarks.storm.latency import p99
from benchmarks.storm.program import DEFAULTS
from benchmarks.storm.row import Row
from benchmarks.storm.run import Found
from benchmarks.storm.verdict import FIGURES
from tdmr import failpoint
from worker.station import SWEEPS_PER_LEASE

SAID = 12  # details of each row that are kept
MOST_RSS_MB = 150.0
RESTART_NOTE = (
    "From the SIGKILL of a worker to the next claim of its job: what is left of the lease, the "
    "sweep that finds it (at most a sixth of a lease later), the back-off of 1 s, and a worker's "
    "next look. (The longer back-offs of jobs that die again without having got on are taken "
    "out.) Measured with a lease of {short:g} s; restart_p99_seconds adds the {longer:g} s by "
    "which the default lease is longer. At the defaults the sweep comes every 10 s instead of "
    "every {sweep:g} s, so up to {late:g} s more are possible."
)


def restart_note(lease: float) -> str:
    """What was measured at this lease, and what it says of the default."""
    sweep, longer = lease / SWEEPS_PER_LEASE, DEFAULTS["lease_seconds"] - lease
    late = DEFAULTS["lease_seconds"] / SWEEPS_PER_LEASE - sweep
    return RESTART_NOTE.format(short=lease, longer=longer, sweep=sweep, late=late)


def summary(found: Found) -> dict[str, Any]:
    """The figures by name."""
    rows = [*found.storms, *found.scenarios]
    kills = [kill for row in found.storms for kill in row.kills]
    totals = Counter[str]()
    for row in rows:
        totals.update(row.verdict.figures)
    deaths = {
        place: [s for row in found.storms for s in row.restarts.get(place, [])]
        for place in ("worker", "process")
    }
    measured = p99(deaths["worker"])
    longer = DEFAULTS["lease_seconds"] - found.plan.lease
    cancels = [row.figures for row in found.scenarios if "p99_seconds" in row.figures]
    cancelled = cancels[0] if cancels else {}
    return {
        "kills": len(kills),
        **{name: totals[name] for name in FIGURES},
        "restart_p99_seconds": None if measured is None else round(measured + longer, 3),
        "restart_measured_p99_seconds": measured,
        "restart_process_p99_seconds": p99(deaths["process"]),
        "restart_note": restart_note(found.plan.lease),
        "cancel_p99_seconds": cancelled.get("p99_seconds"),
        "cancel_deaf_p99_seconds": cancelled.get("deaf_p99_seconds"),
        "start_median_seconds": found.starts,
        "negative_controls": {g: controls.caught(g, row) for g, row in found.controls.items()},
        "caught_by": {g: row.verdict.caught for g, row in found.controls.items()},
        "idle": {
            "cpu_percent": max(each["cpu_percent"] for each in found.idle.values()),
            "rss_mb": max(each["rss_mb"] for each in found.idle.values()),
            "torch": any(each["torch"] for each in found.idle.values()),
            **found.idle,
        },
        "failpoints": _failpoints(found),
        "real_kills": sum(kill.real for kill in kills),
        "kills_by_target": Counter(kill.target for kill in kills),
        "kills_by_arena": {row.name: len(row.kills) for row in found.storms},
        "jobs": sum(row.verdict.jobs for row in rows),
        "scenarios": {row.name: _row(row) for row in rows},
        "seconds": found.seconds,
    }


def _failpoints(found: Found) -> dict[str, Any]:
    reached = {name for row in found.scenarios for name in row.figures.get("reached", ())}
    trained = {name for row in found.storms for name in row.figures.get("real_points", ())}
    return {
        "reached": len(reached),
        "all": len(failpoint.POINTS),
        "names": sorted(reached),
        "of_real_trainings": sorted(trained),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "good": row.good,
        "jobs": row.verdict.jobs,
        "kills": len(row.kills),
        **{name: row.verdict.figures[name] for name in FIGURES},
        **row.figures,
        "failed": row.failed,
        "details": row.verdict.details[:SAID],
        "seconds": row.seconds,
    }


def broken(found: Found) -> list[str]:
    """Every guarantee that wasn't kept; empty when all is well."""
    said = []
    for row in (*found.storms, *found.scenarios):
        said += [f"{row.name}: {each}" for each in (*row.failed, *row.verdict.details[:SAID])]
    result = summary(found)
    said += [
        f"without {guard} nothing was noticed"
        for guard, noticed in result["negative_controls"].items()
        if not noticed
    ]
    points = result["failpoints"]
    if points["reached"] != points["all"]:
        said.append(f"came to {points['reached']} of {points['all']} failpoints")
    if found.plan.real_points and not points["of_real_trainings"]:
        said.append("no real training came to its failpoints")
    idle = result["idle"]
    if (
        idle["cpu_percent"] >= found.plan.idle_percent
        or idle["rss_mb"] >= MOST_RSS_MB
        or idle["torch"]
    ):
        said.append(f"an idle worker is heavy: {idle}")
    students = {row.figures.get("student") for row in found.storms}
    if len(students) != 1:
        said.append(f"undisturbed trainings of one job differ: {students}")
    return said + [f"outlived the storm: {each}" for each in found.left]


def show(console: Console, found: Found) -> None:
    """Print every arena, then the figures."""
    table = Table("", "jobs", "kills", *(name.replace("_", " ") for name in FIGURES), "", "s")
    for row in (*found.storms, *found.scenarios):
        figures = (str(row.verdict.figures[name]) for name in FIGURES)
        verdict = "kept" if row.good else "[red]BROKEN"
        count = str(len(row.kills)) if row.kills else ""
        jobs = str(row.verdict.jobs)
        table.add_row(row.name, jobs, count, *figures, verdict, f"{row.seconds:.0f}")
    for guard, row in found.controls.items():
        figures = (str(row.verdict.figures[name]) for name in FIGURES)
        verdict = "noticed" if controls.caught(guard, row) else "[red]NOT NOTICED"
        jobs = str(row.verdict.jobs)
        table.add_row(f"without {guard}", jobs, "", *figures, verdict, f"{row.seconds:.0f}")
    result = summary(found)
    console.print(table)
    for name in (
        "kills", "real_kills", "kills_by_target", "restart_p99_seconds",
        "restart_measured_p99_seconds", "restart_process_p99_seconds", "cancel_p99_seconds",
        "cancel_deaf_p99_seconds", "start_median_seconds", "idle", "negative_controls",
    ):  # fmt: skip
        value = result[name]
        console.print(f"{name}: {dict(value) if isinstance(value, Counter) else value}")
    points = result["failpoints"]
    console.print(
        f"failpoints: {points['reached']} of {points['all']}", points["of_real_trainings"]
    )
