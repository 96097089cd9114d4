"""The only writer of `Job.state`: a job is made, claimed, and moved along the table of states.

Every function takes the caller's session and leaves the commit to the caller, so that a result
and the state that announces it are one transaction. Time is the database's. Each write for a
running job goes through `fenced`: it names the attempt and the worker that claimed it, so what
comes from an attempt that was given up on changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from sqlalchemy import ColumnElement, Select, bindparam, func, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from app import logs, metrics, outbox
from app.db import after_commit, new_id, now
from app.jobs import log, queue, together
from app.jobs.claims import Claim, LeaseLostError
from app.jobs.states import ENDED, HELD, State, check
from app.models import Job, Json
from app.webhooks import events as webhooks
from tdmr import spans


def submit(
    session: Session,
    *,
    owner: str,
    kind: str,
    dataset_id: str | None,
    spec: Json,
    max_attempts: int,
    ring: bool,
    metadata: Json | None = None,
    idempotency_key: str | None = None,
    request_sha256: str | None = None,
    queue_name: str = "default",
    priority: int = 0,
    devices: int = 1,
    max_seconds: float | None = None,
    model_id: str | None = None,
    parent_id: str | None = None,
    retry_of: str | None = None,
    checkpoint: Json | None = None,
    sweep_id: str | None = None,
    waits_for: str | None = None,
    estimate: Json | None = None,
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
        model_id=model_id,
        spec=spec,
        user_metadata=metadata or {},
        idempotency_key=idempotency_key,
        request_sha256=request_sha256,
        queue=queue_name,
        priority=priority,
        devices=devices,
        max_seconds=max_seconds,
        parent_id=parent_id,
        request_id=logs.REQUEST.get(),
        traceparent=spans.PARENT.get(),
        retry_of=retry_of,
        checkpoint=checkpoint,
        sweep_id=sweep_id,
        waits_for=waits_for,
        estimate=estimate,
        max_attempts=max_attempts,
        run_after=moment,
        created_at=moment,
    )
    return _begun(session, job, ring=ring)


def _begun(session: Session, job: Job, *, ring: bool) -> Job:
    session.add(job)
    session.flush()
    log.append(session, job.id, "submitted", {})
    owe_bell(session, job, ring=ring)
    return job


def is_any(
    session: Session,
    queues: Sequence[str] | None,
    kinds: Sequence[str] | None,
    devices: int = queue.ALL,
) -> bool:
    """Whether `claim` would find one now: a look that costs little."""
    given = {"moment": now(session), "at_most_devices": devices}
    return bool(session.scalar(_look(*_key(queues, kinds)), given))


def claim(
    session: Session,
    *,
    worker: str,
    lease_seconds: float,
    queues: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    devices: int = queue.ALL,
) -> Claim | None:
    """Take the next due job of these queues and kinds (None: of all), or give None.

    Trainings on more than `devices` are left to others.

    One conditional UPDATE: of many claimers at once, each job has exactly one winner.
    """
    moment = now(session)
    given = {
        "moment": moment,
        "worker": worker,
        "until": moment + timedelta(seconds=lease_seconds),
        "at_most_devices": devices,
    }
    for take in _takes(*_key(queues, kinds)):
        job = session.scalar(take, given)
        if job is not None:
            break
    if job is None:
        return None
    log.append(session, job.id, "started", {"attempt": job.attempt, "worker": worker})
    after_commit(session, metrics.CLAIMS.labels(job.kind).inc)
    return Claim(
        job_id=job.id,
        kind=job.kind,
        attempt=job.attempt,
        owner=job.owner,
        dataset_id=job.dataset_id,
        model_id=job.model_id,
        parent_id=job.parent_id,
        spec=job.spec,
        checkpoint=job.checkpoint,
        worker=worker,
        request_id=job.request_id,
        traceparent=job.traceparent,
    )


def _key(*names: Sequence[str] | None) -> tuple[tuple[str, ...] | None, ...]:
    return tuple(None if each is None else tuple(each) for each in names)


# Made once each, since that takes longer than to carry them out.
@lru_cache(maxsize=64)
def _look(queues: tuple[str, ...] | None, kinds: tuple[str, ...] | None) -> Select[bool]:
    return select(queue.is_any(queues, kinds))


@lru_cache(maxsize=64)
def _takes(
    queues: tuple[str, ...] | None, kinds: tuple[str, ...] | None
) -> list[ReturningUpdate[Job]]:
    moment = queue.MOMENT
    return [
        update(Job)
        .where(Job.id == first, Job.state == State.QUEUED)
        .values(
            state=State.RUNNING,
            attempt=Job.attempt + 1,
            lease_owner=bindparam("worker"),
            lease_until=bindparam("until"),
            claimed_at=moment,
            heartbeat_at=moment,
            started_at=func.coalesce(Job.started_at, moment),
            progress=None,
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
        for first in queue.nexts(queues, kinds)
    ]


def fenced(session: Session, claim: Claim) -> Job:
    """The claimed job, locked until the caller's transaction ends; its heartbeat is renewed.

    Raises LeaseLostError when the job was taken from this attempt.
    """
    job = session.scalar(
        update(Job)
        .where(*_fence(claim))
        .values(heartbeat_at=now(session))
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return _unless_lost(job, claim)


def held(session: Session, claim: Claim) -> Job:
    """The claimed job as it is now, to look at. Raises LeaseLostError as `fenced` does."""
    return _unless_lost(session.scalar(select(Job).where(*_fence(claim))), claim)


def _fence(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """What only the attempt that holds the job knows."""
    return (
        Job.id == claim.job_id,
        Job.attempt == claim.attempt,
        Job.lease_owner == claim.worker,
        Job.state.in_(HELD),
    )


def _unless_lost(job: Job | None, claim: Claim) -> Job:
    if job is None:
        raise LeaseLostError(f"{claim.job_id}: attempt {claim.attempt} no longer holds it")
    return job


def locked(session: Session, job_id: str) -> Job:
    """The job as it is now, locked until the caller's transaction ends."""
    return session.scalars(
        select(Job)
        .where(Job.id == job_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()


def move(session: Session, job: Job, state: State, event: str, data: Json) -> State:
    """Change the state of a job that the caller has locked, log it, and tell its owner."""
    check(job.state, state)
    if state not in HELD:
        job.spent_seconds = spent(job)
        job.lease_owner = job.lease_until = None
    job.state = state
    if state in ENDED:
        job.ended_at = now(session)
        code = job.failure["code"] if job.failure and state == State.FAILED else ""
        after_commit(session, metrics.ENDED.labels(job.kind, state, code).inc)
    log.append(session, job.id, event, data)
    webhooks.job_moved(session, job)
    if job.sweep_id is not None:
        session.flush()
        together.moved(session, job)
    return state


def spent(job: Job, moment: datetime | None = None) -> float:
    """Seconds of work on the job in all its attempts, until `moment` or its last heartbeat."""
    if job.state not in HELD:
        return job.spent_seconds
    until = moment or job.heartbeat_at
    assert job.claimed_at is not None
    assert until is not None
    return job.spent_seconds + (until - job.claimed_at).total_seconds()


def owe_bell(session: Session, job: Job, *, ring: bool) -> None:
    if ring:
        outbox.ring(session, job)
