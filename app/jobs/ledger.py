"""What workers and users do to jobs: the moves of `app.jobs.moves`, and what follows from each.

Every function works in the caller's transaction. Those that take a claim raise LeaseLostError
when the job was taken from this attempt; nothing is changed then.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import metrics
from app.db import after_commit, now
from app.errors import ConflictError
from app.jobs import ends, log, together
from app.jobs.claims import Checkpoint, Claim, Orders, Swept
from app.jobs.moves import fenced, held, locked, move, owe_bell, spent
from app.jobs.states import ENDED, HELD, State
from app.models import Job, Json
from tdmr.errors import Failure

SWEEP_BATCH = 100
PUT_OFF_SECONDS = 15.0


def beat(
    session: Session,
    claim: Claim,
    *,
    lease_seconds: float,
    progress: Json | None = None,
    warnings: Sequence[str] = (),
) -> Orders:
    """Prolong the lease, note what the job has said since, and tell the attempt what to do.

    Raises LeaseLostError. The caller sees to it that progress comes at most once a second.
    """
    job = fenced(session, claim)
    assert job.heartbeat_at is not None  # `fenced` has just written it
    job.lease_until = job.heartbeat_at + timedelta(seconds=lease_seconds)
    for warning in warnings:
        log.append(session, job.id, "warning", {"message": warning})
    if progress is not None:
        job.progress = progress
        log.append(session, job.id, "progress", progress)
        together.heard(session, job, progress)
    return _orders(job, job.heartbeat_at)


def orders(session: Session, claim: Claim) -> Orders:
    """What a beat would answer, without being one: nothing is written. Raises LeaseLostError."""
    return _orders(held(session, claim), now(session))


def save_checkpoint(session: Session, claim: Claim, checkpoint: Checkpoint) -> None:
    """Point to what the next attempt goes on from; it is durable. Raises LeaseLostError.

    A job that got further than ever has its strikes forgiven: only deaths on ground that it has
    covered before count as its own doing.
    """
    job = fenced(session, claim)
    stage, step, furthest = checkpoint.stage, checkpoint.step, job.furthest or {}
    if step > furthest.get(stage, -1):
        job.furthest, job.strikes = {**furthest, stage: step}, 0
    job.checkpoint = checkpoint.model_dump(mode="json")
    log.append(session, job.id, "checkpoint", {"stage": stage, "step": step})


def trained(session: Session, claim: Claim, result: Json, *, ring: bool) -> None:
    """The training is done and stored: have it packaged, as `result` says. Or LeaseLostError."""
    job = fenced(session, claim)
    move(session, job, State.PACKAGING, "trained", {})
    ends.package(session, job, result, ring=ring)


def succeed(session: Session, claim: Claim, data: Json) -> None:
    """End the job well. `data` goes into its last event. Raises LeaseLostError.

    A package's end is its parent's too, whose checkpoint nothing needs any more unless the
    student is a partial one.
    """
    job = fenced(session, claim)
    move(session, job, State.SUCCEEDED, "succeeded", data)
    if job.parent_id is not None:
        parent = locked(session, job.parent_id)
        if parent.state == State.PACKAGING:
            if not data.get("partial"):
                parent.checkpoint = None
            move(session, parent, State.SUCCEEDED, "succeeded", data)
        else:
            log.append(session, parent.id, "student_ready", data)


def fail(session: Session, claim: Claim, failure: Failure, *, ring: bool = False) -> State:
    """End this attempt badly, and give the state that follows from it. Raises LeaseLostError.

    A retryable failure is tried again, later, until `max_attempts` in a row came no further.
    """
    return ends.give_up(session, fenced(session, claim), failure, ring=ring)


def cancelled(session: Session, claim: Claim, *, ring: bool = False) -> State:
    """Say that the job is cancelled: nothing of it runs any more. Raises LeaseLostError."""
    return ends.cancel(session, fenced(session, claim), ring=ring)


def paused(session: Session, claim: Claim, *, ring: bool = False) -> State:
    """Say that the job is paused: nothing of it runs any more. Raises LeaseLostError."""
    job = fenced(session, claim)
    if job.cancel_requested_at is not None:
        return ends.cancel(session, job, ring=ring)
    return move(session, job, State.PAUSED, "paused", {"attempt": job.attempt})


def budget_spent(session: Session, claim: Claim, *, ring: bool = False) -> State:
    """End a job that has used up its seconds, with the student so far. Raises LeaseLostError."""
    job = fenced(session, claim)
    if job.cancel_requested_at is not None:
        return ends.cancel(session, job, ring=ring)
    if ends.has_student(job):
        move(session, job, State.PACKAGING, "budget_spent", {"max_seconds": job.max_seconds})
        ends.package(session, job, {"rescue": True}, ring=ring)
        return State.PACKAGING
    assert job.max_seconds is not None
    failure = Failure(
        code="budget_exhausted",
        user_error=True,
        stage=ends.stage(job),
        detail=f"The {job.max_seconds:g} seconds were over before there was a student.",
        suggestion="Retry it with a larger budget.max_seconds; it goes on where it stopped.",
        change={"budget": {"max_seconds": 4 * job.max_seconds}},
    )
    return ends.fail(session, job, failure, ring=ring)


def hand_back(session: Session, claim: Claim, *, ring: bool = False) -> State:
    """Put the job back, due at once: its worker must go. Raises LeaseLostError."""
    job = fenced(session, claim)
    if job.cancel_requested_at is not None:
        return ends.cancel(session, job, ring=ring)
    return ends.requeue(session, job, delay=0.0, data={"reason": "handed_back"}, ring=ring)


def put_off(session: Session, claim: Claim, *, ring: bool = False) -> State:
    """Put the job back for a while: the store of files is away. Raises LeaseLostError."""
    job = fenced(session, claim)
    if job.cancel_requested_at is not None:
        return ends.cancel(session, job, ring=ring)
    why = {"reason": "storage_unavailable"}
    return ends.requeue(session, job, delay=PUT_OFF_SECONDS, data=why, ring=ring)


def request_cancel(session: Session, job: Job, *, ring: bool = False) -> Job:
    """Cancel a waiting job at once; ask a running one to stop. Raises ConflictError."""
    job = _owners_own(session, job)
    if job.state in ENDED or job.state == State.PACKAGING:
        raise ConflictError(f"The job can't be cancelled: it is {job.state} already.")
    if job.cancel_requested_at is not None:
        return job
    job.cancel_requested_at = now(session)
    if job.state in HELD:
        log.append(session, job.id, "cancel_requested", {})
    else:
        ends.cancel(session, job, ring=ring)
    session.flush()
    return job


def request_pause(session: Session, job: Job) -> Job:
    """Pause a queued job at once; ask a running one to save its state. Raises ConflictError."""
    job = _owners_own(session, job)
    if job.state in (State.PAUSING, State.PAUSED):
        return job
    if job.state not in (State.QUEUED, State.RUNNING) or job.cancel_requested_at is not None:
        what = "being cancelled" if job.state in HELD else f"{job.state} already"
        raise ConflictError(f"The job can't be paused: it is {what}.")
    job.pause_requested_at = now(session)
    if job.state == State.QUEUED:
        move(session, job, State.PAUSED, "paused", {"attempt": job.attempt})
    else:
        move(session, job, State.PAUSING, "pause_requested", {})
    session.flush()
    return job


def request_resume(session: Session, job: Job, *, ring: bool = False) -> Job:
    """Queue a paused job again. Raises ConflictError for a job that isn't paused."""
    job = locked(session, job.id)
    if job.state != State.PAUSED:
        headers = {"Retry-After": "2"} if job.state == State.PAUSING else None
        raise ConflictError(
            f"Only a paused job can be resumed: this one is {job.state}.", headers=headers
        )
    job.pause_requested_at, job.run_after, job.strikes = None, now(session), 0
    job.progress = None
    if job.sweep_id is not None:
        together.line_up(session, job)
    move(session, job, State.QUEUED, "resumed", {})
    owe_bell(session, job, ring=ring)
    session.flush()
    return job


def sweep(session: Session, *, ring: bool = False) -> list[Swept]:
    """Take back the jobs whose lease has run out: queued again, or ended. Any worker may call it.

    A job whose workers died `max_attempts` times without getting on is `failed` with code
    `worker_lost`: it may be what kills them.
    """
    expired = session.scalars(
        select(Job)
        .where(Job.state.in_(HELD), Job.lease_until < now(session))
        .order_by(Job.lease_until)
        .limit(SWEEP_BATCH)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    return [_sweep_one(session, job, ring=ring) for job in expired]


def _owners_own(session: Session, job: Job) -> Job:
    """The job, locked. Raises ConflictError for a package: another job waits for its end."""
    if job.parent_id is not None:
        raise ConflictError("The packaging of a student can't be stopped.")
    return locked(session, job.id)


def _orders(job: Job, moment: datetime) -> Orders:
    return Orders(
        cancel=job.cancel_requested_at is not None,
        pause=job.state == State.PAUSING,
        budget_spent=job.max_seconds is not None and spent(job, moment) >= job.max_seconds,
    )


def _sweep_one(session: Session, job: Job, *, ring: bool) -> Swept:
    failure = Failure(
        code="worker_lost",
        user_error=False,
        stage=ends.stage(job),
        detail=f"The worker went silent during attempt {job.attempt}.",
        retryable=True,
        suggestion="Retry it; if it happens again, look at the worker's memory.",
    )
    attempt = job.attempt
    after_commit(session, metrics.SWEPT.labels(job.kind).inc)
    state = ends.give_up(session, job, failure, ring=ring)
    return Swept(
        job_id=job.id,
        kind=job.kind,
        attempt=attempt,
        dataset_id=job.dataset_id,
        model_id=job.model_id,
        state=state,
        failure=failure if state == State.FAILED else None,
    )
