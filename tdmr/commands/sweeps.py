"""`tdmr sweeps`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tdmr.commands.jobs import Baselines, DryRun, MaxSeconds, Priority, Queue, foresee
from tdmr.commands.shared import (
    AsJson,
    Limit,
    Options,
    Single,
    connected,
    document,
    facts,
    options_of,
    table,
)

if TYPE_CHECKING:
    from tdmr.wire.sweeps import SweepOut

app = typer.Typer(
    no_args_is_help=True, help="Many students of one foundation, and which are worth having."
)
SweepId = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's id: swp_…")]


@app.command()
def submit(
    dataset: Annotated[str, typer.Option(help="A dataset that is ready: ds_…")],
    foundation: Annotated[str, typer.Option(help="See `tdmr models list`.")],
    student: Annotated[list[str], typer.Option(help="timm name of a small model; repeat.")],
    name: Annotated[str | None, typer.Option(help="Yours.")] = None,
    options: Options = "{}",
    option: Single = None,
    baseline: Baselines = None,
    max_seconds: MaxSeconds = None,
    priority: Priority = None,
    queue: Queue = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Order many students; the foundation sees the images once for all of them."""
    more: dict[str, Any] = {
        "name": name,
        "baselines": baseline,
        "max_seconds": max_seconds,
        "priority": priority,
        "queue": queue,
    }
    asked = options_of(options, option)
    with connected() as client:
        if dry_run:
            foresee(
                client.check_sweep(dataset, foundation, student, options=asked, **more), as_json
            )
            return
        _print(client.submit_sweep(dataset, foundation, student, options=asked, **more), as_json)


@app.command("list")
def list_(limit: Limit = 20, as_json: AsJson = False) -> None:
    """List your sweeps, the newest first."""
    with connected() as client:
        found = list(islice(client.sweeps(), limit))
    if as_json:
        document(found)
        return
    rows = ((s.id, s.name, s.status, s.foundation, len(s.students), s.created_at) for s in found)
    table(("sweep", "name", "status", "foundation", "students", "ordered"), rows)


@app.command()
def show(sweep_id: SweepId, as_json: AsJson = False) -> None:
    """Show a sweep's jobs, and the Pareto table of the students that have come of it."""
    with connected() as client:
        _print(client.sweep(sweep_id), as_json)


@app.command()
def cancel(sweep_id: SweepId, as_json: AsJson = False) -> None:
    """Call off whatever of a sweep hasn't ended."""
    with connected() as client:
        _print(client.cancel_sweep(sweep_id), as_json)


def _print(found: SweepOut, as_json: bool) -> None:
    if as_json:
        document(found)
        return
    facts(
        ("sweep", found.id),
        ("name", found.name),
        ("status", found.status),
        ("dataset", found.dataset_id),
        ("foundation", found.foundation),
        ("forwards", found.foundation_forwards and f"{found.foundation_forwards:,}"),
    )
    jobs = ((job.job_id, job.student, job.status, job.failure_code) for job in found.jobs)
    table(("job", "student", "status", "failure"), jobs)
    if not found.result.rows:
        return
    columns = ("student", "architecture", "accuracy", "parameters", "bytes", "p50 ms", "front")
    rows = (
        (
            row.student_id,
            row.student,
            row.accuracy and f"{row.accuracy:.3f}",
            row.params and f"{row.params:,}",
            row.file_bytes and f"{row.file_bytes:,}",
            row.latency_p50_ms and f"{row.latency_p50_ms:.2f}",
            "yes" if row.on_front else "",
        )
        for row in found.result.rows
    )
    table(columns, rows)
