"""`tdmr jobs`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tdmr.commands.shared import (
    ENDED_BADLY,
    INTERRUPTED,
    PATIENCE,
    REFUSED,
    AsJson,
    Limit,
    Options,
    Permanently,
    Single,
    connected,
    deleted,
    document,
    facts,
    line,
    options_of,
    plain,
    table,
)

if TYPE_CHECKING:
    from tdmr.client import Job
    from tdmr.wire.jobs import EventOut
    from tdmr.wire.plans import DryRunOut

app = typer.Typer(
    no_args_is_help=True, help="Order students, watch them being made, stop and go on."
)
WATCH_PATIENCE = 300.0  # seconds that a server may be away while its job is watched

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id: job_…")]
Baselines = Annotated[
    list[str] | None, typer.Option("--baseline", help="What to compare with; repeat.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Show it until it has ended.")]
MaxSeconds = Annotated[float | None, typer.Option(help="Of work; then the student so far.")]
Priority = Annotated[int | None, typer.Option(help="Among your own waiting jobs.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would come.")]
Queue = Annotated[str | None, typer.Option(help="One of the server's queues.")]


@app.command()
def submit(
    dataset: Annotated[str, typer.Option(help="A dataset that is ready: ds_…")],
    foundation: Annotated[str, typer.Option(help="See `tdmr models list`.")],
    student: Annotated[str, typer.Option(help="timm name of the small model.")],
    options: Options = "{}",
    option: Single = None,
    baseline: Baselines = None,
    max_seconds: MaxSeconds = None,
    priority: Priority = None,
    queue: Queue = None,
    watch: Watch = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Order a student.

    tdmr jobs submit --dataset ds_… --foundation letters_vit --student test_resnet
    --option training.steps=300 --baseline kd --watch
    """
    more: dict[str, Any] = {} if baseline is None else {"baselines": baseline}
    asked = options_of(options, option)
    more |= {"max_seconds": max_seconds, "priority": priority, "queue": queue}
    with connected(WATCH_PATIENCE if watch else PATIENCE) as client:
        if dry_run:
            foresee(client.check(dataset, foundation, student, options=asked, **more), as_json)
            return
        job = client.submit(dataset, foundation, student, options=asked, **more)
        _ordered(job, watch, as_json)


@app.command()
def retry(
    job_id: JobId,
    options: Options = "{}",
    option: Single = None,
    baseline: Baselines = None,
    max_seconds: MaxSeconds = None,
    priority: Priority = None,
    queue: Queue = None,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Order a job anew that failed, was cancelled or ended early, with changes if you like."""
    given = {
        "options": options_of(options, option) or None,
        "baselines": baseline,
        "budget": None if max_seconds is None else {"max_seconds": max_seconds},
        "priority": priority,
        "queue": queue,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    with connected(WATCH_PATIENCE if watch else PATIENCE) as client:
        _ordered(client.retry(job_id, **changes), watch, as_json)


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List your jobs, the newest first."""
    with connected() as client:
        found = list(islice(client.jobs(status), limit))
    if as_json:
        document(found)
        return
    columns = ("job", "status", "foundation", "student", "stage", "ordered")
    rows = (
        (job.id, job.status, job.foundation, job.student, _stage(job), job.created_at)
        for job in found
    )
    table(columns, rows)


@app.command()
def show(job_id: JobId, as_json: AsJson = False) -> None:
    """Show a job: how far it is, what it waits for, how it ended."""
    with connected() as client:
        _print(client.job(job_id), as_json)


@app.command()
def watch(job_id: JobId, as_json: AsJson = False) -> None:
    """Show a job until it has ended; with --json a line for each change.

    Ctrl-C ends the watching alone: the job goes on.
    """
    with connected(WATCH_PATIENCE) as client:
        _watch(client.job(job_id), as_json)


@app.command()
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it has ended.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Only what is behind this number.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Print a job's log; with --json a line for each entry."""
    with connected(WATCH_PATIENCE if follow else PATIENCE) as client:
        for event in client.stream(job_id, after) if follow else client.events(job_id, after):
            if as_json:
                line(event.model_dump(mode="json"))
            else:
                typer.echo(_entry(event))


@app.command()
def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Call a job off; what it has learnt so far is kept."""
    with connected() as client:
        _print(client.cancel(job_id), as_json)


@app.command()
def pause(job_id: JobId, as_json: AsJson = False) -> None:
    """Stop a job behind a checkpoint."""
    with connected() as client:
        _print(client.pause(job_id), as_json)


@app.command()
def resume(job_id: JobId, as_json: AsJson = False) -> None:
    """Queue a paused job again."""
    with connected() as client:
        _print(client.resume(job_id), as_json)


@app.command()
def delete(job_id: JobId, permanently: Permanently = False, as_json: AsJson = False) -> None:
    """Delete a job that has ended; for a while `restore` brings it back."""
    with connected() as client:
        client.delete_job(job_id, permanently=permanently)
    deleted(job_id, as_json)


@app.command()
def restore(job_id: JobId, as_json: AsJson = False) -> None:
    """Bring a deleted job back."""
    with connected() as client:
        _print(client.restore_job(job_id), as_json)


def _ordered(job: Job, watch: bool, as_json: bool) -> None:
    if watch:
        _watch(job, as_json)
    else:
        _print(job, as_json)


def foresee(found: DryRunOut, as_json: bool) -> None:
    """Print what would become of an order, and end with the code that it would end with."""
    if as_json:
        document(found)
    else:
        for each in found.findings:
            typer.echo(f"{each.severity}: {each.pointer} {plain(each.detail)} {plain(each.advice)}")
        estimate = found.estimate
        if estimate is not None and estimate.seconds is not None:
            typer.echo(
                f"about {estimate.seconds:.0f} s of work ({estimate.low:.0f} to "
                f"{estimate.high:.0f}), {estimate.foundation_forwards:,} foundation forwards"
            )
        elif estimate is not None:
            typer.echo(
                f"{estimate.foundation_forwards:,} foundation forwards; how long they and the "
                "training take isn't known: nothing like it was measured yet"
            )
    if not found.ok:
        raise typer.Exit(REFUSED)


def _watch(job: Job, as_json: bool) -> None:
    """Show a job until it has ended, and end with its exit code."""
    try:
        if as_json:
            job = job.wait(lambda now: line(now.model_dump(mode="json")))
        else:
            job = _drawn(job)
            _print(job, as_json)
    except KeyboardInterrupt:
        typer.echo(
            f"{job.id} goes on. Watch it again: tdmr jobs watch {job.id}\n"
            f"Call it off: tdmr jobs cancel {job.id}",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    if job.status != "succeeded":
        raise typer.Exit(ENDED_BADLY)


def _drawn(job: Job) -> Job:
    from tdmr.commands.bars import StageBars

    with StageBars() as bars:
        return job.wait(bars.show_job)


def _print(job: Job, as_json: bool) -> None:
    if as_json:
        document(job)
        return
    failure = job.failure
    place = None if job.queue_position is None else f"{job.queue_position} ({job.waiting_reason})"
    facts(
        ("job", job.id),
        ("status", job.status),
        ("dataset", job.dataset_id),
        ("foundation", job.foundation),
        ("student", job.student),
        ("in the queue", place),
        ("stage", _stage(job)),
        ("losses", ", ".join(f"{name} {value:.4g}" for name, value in job.losses.items())),
        ("seconds left", job.eta_seconds and f"{job.eta_seconds:.0f}"),
        ("failure", failure and f"{failure.code}: {failure.detail}"),
        ("what to do", failure and failure.suggestion),
        ("made", job.student_id and f"{job.student_id}{' (ended early)' if job.partial else ''}"),
        ("retry of", job.retry_of),
    )


def _stage(job: Job) -> str:
    if job.stage is None:
        return ""
    of = "" if job.step is None else f", step {job.step} of {job.steps}"
    return f"{job.stage.index}/{job.stage.count} {job.stage.name} {job.stage.progress:.0%}{of}"


def _entry(event: EventOut) -> str:
    data = " ".join(f"{name}={plain(value)}" for name, value in event.data.items())
    return f"{event.seq:>5}  {event.at:%Y-%m-%dT%H:%M:%SZ}  {plain(event.type)}  {data}".rstrip()
