"""Jobs as their owners see them: ordered, looked at, stopped, gone on with.

Every function works in the caller's transaction; the ledger alone changes states.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import audit, deletion
from app.errors import ConflictError, NotFoundError
from app.jobs import ledger, log, moves, queue, together
from app.jobs.dependants import packaging
from app.jobs.idempotency import Idempotency
from app.jobs.queue import Place
from app.jobs.states import ENDED, State
from app.models import Event, Job, Json, Student
from app.settings import DEFAULT_QUEUE, Settings
from tdmr import own
from tdmr.config import JobSpec

KIND = "distil"


@dataclass(frozen=True)
class View:
    """A job, its place in the queue while it waits, and the student that came of it."""

    job: Job
    place: Place | None
    student: Student | None


@dataclass(frozen=True)
class Terms:
    """How a job is to be treated, beside what it is to do."""

    queue: str = DEFAULT_QUEUE
    priority: int = 0
    max_seconds: float | None = None


def create(
    session: Session,
    *,
    owner: str,
    dataset_id: str,
    spec: JobSpec,
    terms: Terms,
    metadata: dict[str, str],
    idempotency: Idempotency,
    settings: Settings,
    retry_of: Job | None = None,
    sweep_id: str | None = None,
    waits_for: str | None = None,
    estimate: Json | None = None,
) -> View:
    """Queue a distillation; as a retry it goes on from the other's checkpoint where that fits.

    Nothing is checked here: see `app.plans.orders`.
    """
    content = spec.model_dump(mode="json")
    # Another order is another training: its steps can't be gone on from.
    same = retry_of is not None and _is_same(JobSpec.model_validate(retry_of.spec), spec)
    checkpoint = retry_of.checkpoint if retry_of and same else None
    job = moves.submit(
        session,
        owner=owner,
        kind=KIND,
        dataset_id=dataset_id,
        model_id=spec.foundation if own.is_own(spec.foundation) else None,
        spec=content,
        metadata=dict(metadata),
        idempotency_key=idempotency.key,
        request_sha256=idempotency.request_sha256,
        max_attempts=settings.max_attempts,
        ring=settings.broker_url is not None,
        queue_name=terms.queue,
        priority=terms.priority,
        devices=spec.options.devices,
        max_seconds=terms.max_seconds,
        retry_of=retry_of.id if retry_of else None,
        checkpoint=checkpoint,
        sweep_id=retry_of.sweep_id if retry_of else sweep_id,
        waits_for=waits_for,
        estimate=estimate if checkpoint is None else None,  # what is left of it nobody knows
    )
    if retry_of is not None and job.sweep_id is not None:
        together.line_up(session, job)
    audit.about(session, "job", job.id, **({"retry_of": retry_of.id} if retry_of else {}))
    return _view(session, job, None, settings)


def _is_same(one: JobSpec, other: JobSpec) -> bool:
    """Whether both are one training, on however many devices."""
    alone = [each.model_dump(exclude={"options": {"devices"}}) for each in (one, other)]
    return alone[0] == alone[1]


def get(session: Session, owner: str, job_id: str, settings: Settings) -> View:
    """An owner's distillation. Raises NotFoundError, also for somebody else's, and GoneError."""
    row = session.execute(
        select(Job, Student)
        .outerjoin(Student, Student.job_id == Job.id)
        .where(Job.id == job_id, Job.owner == owner, Job.kind == KIND)
    ).one_or_none()
    if row is None:
        raise NotFoundError("There is no such job.")
    deletion.check(row[0])
    return _view(session, row[0], row[1], settings)


def newest(
    session: Session,
    owner: str,
    before: str | None,
    state: str | None,
    limit: int,
) -> list[tuple[Job, Student | None]]:
    """An owner's distillations, the newest first, beginning behind the id `before`."""
    query = (
        select(Job, Student)
        .outerjoin(Student, Student.job_id == Job.id)
        .where(Job.owner == owner, Job.kind == KIND, Job.deleted_at.is_(None))
    )
    if before is not None:
        query = query.where(Job.id < before)
    if state is not None:
        query = query.where(Job.state == state)
    rows = session.execute(query.order_by(Job.id.desc()).limit(limit))
    return [(job, student) for job, student in rows]


def events(
    session: Session, owner: str, job_id: str, after: int, limit: int, settings: Settings
) -> list[Event]:
    """Entries of a job's log behind number `after`. Raises NotFoundError."""
    return log.read(session, get(session, owner, job_id, settings).job.id, after, limit)


def cancel(session: Session, owner: str, job_id: str, settings: Settings) -> View:
    """Cancel a job. Raises NotFoundError, and ConflictError when it has ended."""
    found = get(session, owner, job_id, settings)
    job = ledger.request_cancel(session, found.job, ring=settings.broker_url is not None)
    return _view(session, job, found.student, settings)


def pause(session: Session, owner: str, job_id: str, settings: Settings) -> View:
    """Pause a job. Raises NotFoundError, and ConflictError when it has ended."""
    found = get(session, owner, job_id, settings)
    return _view(session, ledger.request_pause(session, found.job), found.student, settings)


def resume(session: Session, owner: str, job_id: str, settings: Settings) -> View:
    """Let a paused job go on. Raises NotFoundError, and ConflictError when it isn't paused."""
    found = get(session, owner, job_id, settings)
    job = ledger.request_resume(session, found.job, ring=settings.broker_url is not None)
    return _view(session, job, found.student, settings)


def retryable(session: Session, owner: str, job_id: str, settings: Settings) -> Job:
    """A job that may be ordered again. Raises NotFoundError and ConflictError."""
    found = get(session, owner, job_id, settings)
    # Its checkpoint isn't freed between this look and the retry's own row.
    session.refresh(found.job, with_for_update={"read": True})
    deletion.check(found.job)
    partial = found.student is not None and found.student.partial
    if found.job.state not in (State.FAILED, State.CANCELLED) and not partial:
        raise ConflictError(
            f"Only a job that failed, was cancelled or ran out of budget can be retried: this one "
            f"is {found.job.state}."
        )
    return found.job


def delete(
    session: Session, owner: str, job_id: str, settings: Settings, *, permanently: bool
) -> None:
    """Delete a job that has ended; its student stays. Raises NotFoundError and ConflictError."""
    job = deletion.locked(session, Job, owner, job_id, Job.kind == KIND)
    if job.state not in ENDED:
        raise ConflictError(f"Only a job that has ended can be deleted: this one is {job.state}.")
    if session.scalar(select(Job.id).where(Job.id == job_id, packaging())) is not None:
        raise ConflictError("Its student is being packaged.", headers={"Retry-After": "2"})
    deletion.delete(session, job, settings, permanently=permanently)


def restore(session: Session, owner: str, job_id: str, settings: Settings) -> View:
    """Bring a deleted job back. Raises NotFoundError and GoneError."""
    deletion.restore(session, deletion.locked(session, Job, owner, job_id, Job.kind == KIND))
    return get(session, owner, job_id, settings)


def _view(session: Session, job: Job, student: Student | None, settings: Settings) -> View:
    return View(job, queue.places(session, [job], settings.worker_patience).get(job.id), student)
