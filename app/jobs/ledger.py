"""The ledger: the only writer of `Job.state`.

Every function takes the caller's session and leaves the commit to the caller, so that a result
and the state that announces it are one transaction. Time is the database's. Each write for a
running job goes through `_fenced`: it names the attempt and the worker that claimed it, so what
comes from an attempt that was given up on changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.orm import Session

from app import outbox
from app.db import new_id, now
from app.errors import ConflictError
from app.jobs.states import ENDED, State, check
from app.models import Event, Job, Json
from tdmr.errors import Failure

MAX_BACKOFF_SECONDS = 300.0
SWEEP_BATCH = 100


class LeaseLostError(Exception):
    """This attempt no longer holds its job: it must stop, and may write nothing."""


@dataclass(frozen=True)
class Claim:
    """What a worker holds while it runs a job; `attempt` and `worker` are the fence."""

    job_id: str
    kind: str
    attempt: int
    owner: str
    dataset_id: str
    spec: Json
    worker: str
    max_attempts: int


@dataclass(frozen=True)
class Swept:
    """A job whose worker went silent, and where it stands now."""

    job_id: str
    kind: str
    attempt: int
    dataset_id: str
    state: State
    failure: Failure | None


def submit(
    session: Session,
    *,
    owner: str,
    kind: str,
    dataset_id: str,
    spec: Json,
    metadata: Json | None = None,
    idempotency_key: str | None = None,
    request_sha256: str | None = None,
    max_attempts: int,
    ring: bool,
) -> Job:
    """Queue a new job, and owe its bell when `ring`.

    Raises sqlalchemy.exc.IntegrityError when the owner has used this idempotency key before;
    the transaction is then to be rolled back.
    """
    moment = now(session)
    job = Job(
        id=new_id("job"),
        owner=owner,
        kind=kind,
        state=State.QUEUED,
        dataset_id=dataset_id,
        spec=spec,
        user_metadata=metadata or {},
        idempotency_key=idempotency_key,
        request_sha256=request_sha256,
        attempt=0,
        max_attempts=max_attempts,
        run_after=moment,
        created_at=moment,
    )
    session.add(job)
    session.flush()
    _event(session, job.id, "submitted", {})
    if ring:
        outbox.ring(session, job.id)
    return job


def claim(
    session: Session,
    *,
    worker: str,
    lease_seconds: float,
    job_id: str | None = None,
    kinds: Sequence[str] | None = None,
) -> Claim | None:
    """Take the oldest due job (or `job_id`, if it's due), or give None.

    One conditional UPDATE: of many claimers at once, each job has exactly one winner.
    """
    moment = now(session)
    due = select(Job.id).where(Job.state == State.QUEUED, Job.run_after <= moment)
    if job_id is not None:
        due = due.where(Job.id == job_id)
    if kinds is not None:
        due = due.where(Job.kind.in_(kinds))
    first = due.order_by(Job.run_after, Job.id).limit(1).with_for_update(skip_locked=True)
    job = session.scalar(
        update(Job)
        .where(Job.id == first.scalar_subquery(), Job.state == State.QUEUED)
        .values(
            state=State.RUNNING,
            attempt=Job.attempt + 1,
            lease_owner=worker,
            lease_until=moment + timedelta(seconds=lease_seconds),
            heartbeat_at=moment,
            started_at=func.coalesce(Job.started_at, moment),
            progress=None,
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    if job is None:
        return None
    _event(session, job.id, "started", {"attempt": job.attempt})
    return Claim(
        job_id=job.id,
        kind=job.kind,
        attempt=job.attempt,
        owner=job.owner,
        dataset_id=job.dataset_id,
        spec=job.spec,
        worker=worker,
        max_attempts=job.max_attempts,
    )


def beat(
    session: Session,
    claim: Claim,
    *,
    lease_seconds: float,
    progress: Json | None = None,
    warnings: Sequence[str] = (),
) -> bool:
    """Prolong the lease and note what the job has said since; True if it is to be cancelled.

    Raises LeaseLostError. The caller sees to it that progress comes at most once a second.
    """
    job = _fenced(session, claim)
    assert job.heartbeat_at is not None  # `_fenced` has just written it
    job.lease_until = job.heartbeat_at + timedelta(seconds=lease_seconds)
    for warning in warnings:
        _event(session, job.id, "warning", {"message": warning})
    if progress is not None:
        job.progress = progress
        _event(session, job.id, "progress", progress)
    return job.cancel_requested_at is not None


def succeed(session: Session, claim: Claim, data: Json) -> None:
    """End the job well. `data` goes into its last event. Raises LeaseLostError."""
    _move(session, _fenced(session, claim), State.SUCCEEDED, "succeeded", data)


def fail(session: Session, claim: Claim, failure: Failure, *, ring: bool = False) -> State:
    """End this attempt badly, and give the state that follows from it. Raises LeaseLostError.

    A retryable failure is tried again, later, while attempts are left.
    """
    return _give_up(session, _fenced(session, claim), failure, ring=ring)


def cancelled(session: Session, claim: Claim) -> None:
    """Say that the job is cancelled: nothing of it runs any more. Raises LeaseLostError."""
    _move(session, _fenced(session, claim), State.CANCELLED, "cancelled", {})


def hand_back(session: Session, claim: Claim, *, ring: bool = False) -> State:
    """Put the job back, due at once: its worker must go. Raises LeaseLostError.

    That wasn't the job's fault, so it gets the attempt back as one more that it may make.
    """
    job = _fenced(session, claim)
    if job.cancel_requested_at is not None:
        return _move(session, job, State.CANCELLED, "cancelled", {})
    job.max_attempts += 1
    return _requeue(session, job, delay=0.0, data={"reason": "handed_back"}, ring=ring)


def request_cancel(session: Session, job: Job) -> Job:
    """Cancel a queued job at once; ask a running one to stop. Raises ConflictError when ended."""
    job = _locked(session, job.id)
    if job.state in ENDED:
        raise ConflictError(f"The job can't be cancelled: it is {job.state} already.")
    if job.cancel_requested_at is not None:
        return job
    job.cancel_requested_at = now(session)
    if job.state == State.QUEUED:
        _move(session, job, State.CANCELLED, "cancelled", {})
    else:
        _event(session, job.id, "cancel_requested", {})
    session.flush()
    return job


def sweep(session: Session, *, ring: bool = False) -> list[Swept]:
    """Take back the jobs whose lease has run out: queued again, or ended. Any worker may call it.

    A job whose workers died `max_attempts` times is `failed` with code `worker_lost`: it may be
    what kills them.
    """
    expired = session.scalars(
        select(Job)
        .where(Job.state == State.RUNNING, Job.lease_until < now(session))
        .order_by(Job.lease_until)
        .limit(SWEEP_BATCH)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    return [_sweep_one(session, job, ring=ring) for job in expired]


def queue_position(session: Session, job: Job) -> int | None:
    """The job's place among those due, 1 being next; None when it isn't queued or not yet due."""
    moment = now(session)
    if job.state != State.QUEUED or job.run_after > moment:
        return None
    ahead = session.scalar(
        select(func.count())
        .select_from(Job)
        .where(
            Job.state == State.QUEUED,
            Job.run_after <= moment,
            tuple_(Job.run_after, Job.id) < (job.run_after, job.id),
        )
    )
    return (ahead or 0) + 1


def events(session: Session, job_id: str, after: int, limit: int) -> list[Event]:
    """At most `limit` entries of a job's log, in order, beginning behind number `after`."""
    return list(
        session.scalars(
            select(Event)
            .where(Event.job_id == job_id, Event.seq > after)
            .order_by(Event.seq)
            .limit(limit)
        )
    )


def backoff(attempt: int) -> float:
    """Seconds to wait after attempt number `attempt` has died: 1, 2, 4 and so on."""
    return float(min(MAX_BACKOFF_SECONDS, 2 ** (min(attempt, 20) - 1)))


def _fenced(session: Session, claim: Claim) -> Job:
    """The claimed job, locked until the caller's transaction ends; its heartbeat is renewed.

    Raises LeaseLostError when the job was taken from this attempt.
    """
    moment = now(session)
    job = session.scalar(
        update(Job)
        .where(
            Job.id == claim.job_id,
            Job.attempt == claim.attempt,
            Job.lease_owner == claim.worker,
            Job.state == State.RUNNING,
        )
        .values(heartbeat_at=moment)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    if job is None:
        raise LeaseLostError(f"{claim.job_id}: attempt {claim.attempt} no longer holds it")
    return job


def _locked(session: Session, job_id: str) -> Job:
    """The job as it is now, locked until the caller's transaction ends."""
    return session.scalars(
        select(Job)
        .where(Job.id == job_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()


def _sweep_one(session: Session, job: Job, *, ring: bool) -> Swept:
    failure = Failure(
        code="worker_lost",
        user_error=False,
        stage=((job.progress or {}).get("stage") or {}).get("name"),
        detail=f"The worker went silent during attempt {job.attempt}.",
        retryable=True,
        suggestion="Submit it again; if it happens again, look at the worker's memory.",
    )
    attempt = job.attempt
    state = _give_up(session, job, failure, ring=ring)
    return Swept(
        job_id=job.id,
        kind=job.kind,
        attempt=attempt,
        dataset_id=job.dataset_id,
        state=state,
        failure=failure if state == State.FAILED else None,
    )


def _give_up(session: Session, job: Job, failure: Failure, *, ring: bool) -> State:
    """What follows from the bad end of an attempt of `job`, which the caller has locked."""
    if job.cancel_requested_at is not None:
        return _move(session, job, State.CANCELLED, "cancelled", {})
    data = failure.model_dump(mode="json")
    if failure.retryable and job.attempt < job.max_attempts:
        why = {"reason": "failed", "failure": data}
        return _requeue(session, job, delay=backoff(job.attempt), data=why, ring=ring)
    job.failure = data
    return _move(session, job, State.FAILED, "failed", {"failure": data})


def _requeue(session: Session, job: Job, *, delay: float, data: Json, ring: bool) -> State:
    if ring:
        outbox.ring(session, job.id)
    job.run_after = now(session) + timedelta(seconds=delay)
    job.progress = None
    return _move(
        session, job, State.QUEUED, "requeued", {"attempt": job.attempt, "delay": delay, **data}
    )


def _move(session: Session, job: Job, state: State, event: str, data: Json) -> State:
    """Change the state of a job that the caller has locked, and log it."""
    check(job.state, state)
    job.state = state
    job.lease_owner = job.lease_until = None
    if state in ENDED:
        job.ended_at = now(session)
    _event(session, job.id, event, data)
    return state


def _event(session: Session, job_id: str, type_: str, data: dict[str, Any]) -> None:
    """Append to the job's log. The caller holds the job's row, so numbers commit in order."""
    last = session.scalar(select(func.max(Event.seq)).where(Event.job_id == job_id))
    session.add(Event(job_id=job_id, seq=(last or 0) + 1, at=now(session), type=type_, data=data))
    session.flush()
