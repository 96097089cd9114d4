"""How an attempt ends badly or early, and what follows: another try, an end, a student saved."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.orm import Session

from app import logs
from app.db import now
from app.jobs.claims import Checkpoint
from app.jobs.moves import locked, move, owe_bell, submit
from app.jobs.states import State
from app.models import Job, Json
from tdmr import spans
from tdmr.errors import Failure

MAX_BACKOFF_SECONDS = 300.0
BEGIN_AGAIN = "checkpoint"  # the code of a failure that is the checkpoint's own


def give_up(session: Session, job: Job, failure: Failure, *, ring: bool) -> State:
    """What follows from the bad end of an attempt of `job`, which the caller has locked."""
    if job.cancel_requested_at is not None:
        return cancel(session, job, ring=ring)
    retryable = failure.retryable
    if failure.code == BEGIN_AGAIN:
        job.checkpoint, retryable = None, True
    job.strikes += 1
    if not retryable or job.strikes >= job.max_attempts:
        return fail(session, job, failure, ring=ring)
    why = {"reason": "failed", "failure": failure.model_dump(mode="json")}
    return requeue(session, job, delay=backoff(job.strikes), data=why, ring=ring)


def requeue(session: Session, job: Job, *, delay: float, data: Json, ring: bool) -> State:
    """Put a held job back where it waits: in the queue, or paused when that was asked for."""
    data = {"attempt": job.attempt, **data}
    job.progress = None
    if job.state == State.PAUSING:
        return move(session, job, State.PAUSED, "paused", data)
    job.run_after = now(session) + timedelta(seconds=delay)
    owe_bell(session, job, ring=ring)
    return move(session, job, State.QUEUED, "requeued", {"delay": delay, **data})


def fail(session: Session, job: Job, failure: Failure, *, ring: bool) -> State:
    job.failure = failure.model_dump(mode="json")
    move(session, job, State.FAILED, "failed", {"failure": job.failure})
    if job.parent_id is not None:
        parent = locked(session, job.parent_id)
        if parent.state == State.PACKAGING:
            parent.failure = job.failure
            move(session, parent, State.FAILED, "failed", {"failure": job.failure})
    elif not failure.user_error and has_student(job):
        package(session, job, {"rescue": True}, ring=ring)
    return State.FAILED


def cancel(session: Session, job: Job, *, ring: bool) -> State:
    move(session, job, State.CANCELLED, "cancelled", {})
    if has_student(job):
        package(session, job, {"rescue": True}, ring=ring)
    return State.CANCELLED


def package(session: Session, job: Job, spec: Json, *, ring: bool) -> None:
    """Queue the packaging of what `job` has trained, as a job of its own.

    It belongs to the request that ordered `job`, whoever brings it about.
    """
    with logs.under(job.request_id), spans.under(job.traceparent):
        submit(
            session,
            owner=job.owner,
            kind="package",
            dataset_id=job.dataset_id,
            model_id=job.model_id,
            spec=spec,
            max_attempts=job.max_attempts,
            ring=ring,
            queue_name=job.queue,
            parent_id=job.id,
        )


def has_student(job: Job) -> bool:
    return job.checkpoint is not None and Checkpoint.model_validate(job.checkpoint).has_student


def stage(job: Job) -> str | None:
    name: str | None = ((job.progress or {}).get("stage") or {}).get("name")
    return name


def backoff(strikes: int) -> float:
    """Seconds to wait after so many bad ends in a row: 1, 2, 4 and so on."""
    return float(min(MAX_BACKOFF_SECONDS, 2 ** (min(strikes, 20) - 1)))
