"""Jobs as their owners see them: ordered, looked at, cancelled.

Every function works in the caller's transaction; the ledger alone changes states.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import (
    DatasetNotReadyError,
    ErrorItem,
    InvalidError,
    NotFoundError,
    UnknownModelError,
)
from app.jobs import ledger
from app.jobs.idempotency import Idempotency
from app.models import Dataset, Event, Job, Student
from app.settings import Settings
from tdmr import catalog, errors
from tdmr.config import JobSpec

KIND = "distil"
ROLES: tuple[Literal["foundation", "student"], ...] = ("foundation", "student")


@dataclass(frozen=True)
class View:
    """A job, its place in the queue, and the student that came of it."""

    job: Job
    queue_position: int | None
    student_id: str | None


def create(
    session: Session,
    *,
    owner: str,
    dataset_id: str,
    spec: JobSpec,
    metadata: dict[str, str],
    idempotency: Idempotency,
    settings: Settings,
) -> View:
    """Queue a distillation.

    Raises UnknownModelError, InvalidError for a dataset that isn't the owner's, and
    DatasetNotReadyError.
    """
    _check_models(spec)
    _check_dataset(session, owner, dataset_id)
    job = ledger.submit(
        session,
        owner=owner,
        kind=KIND,
        dataset_id=dataset_id,
        spec=spec.model_dump(mode="json"),
        metadata=dict(metadata),
        idempotency_key=idempotency.key,
        request_sha256=idempotency.request_sha256,
        max_attempts=settings.max_attempts,
        ring=settings.broker_url is not None,
    )
    return View(job, ledger.queue_position(session, job), None)


def _check_models(spec: JobSpec) -> None:
    items = [item for role in ROLES if (item := _unknown(getattr(spec, role), role))]
    if items:
        raise UnknownModelError(" ".join(item.detail for item in items), items)


def _unknown(name: str, role: Literal["foundation", "student"]) -> ErrorItem | None:
    """What is wrong with a model's name. Only names of the catalog are taken, never paths."""
    try:
        catalog.require(name, role)
    except errors.UnknownModelError as error:
        near = get_close_matches(name.partition(".")[0], catalog.names(role), n=5, cutoff=0.5)
        return ErrorItem(
            pointer=f"/{role}",
            code=errors.UnknownModelError.code,
            detail=str(error),
            allowed=near or [entry.name for entry in catalog.entries(role)],
        )
    return None


def _check_dataset(session: Session, owner: str, dataset_id: str) -> None:
    dataset = session.scalars(
        select(Dataset).where(Dataset.id == dataset_id, Dataset.owner == owner)
    ).one_or_none()
    if dataset is None:
        raise InvalidError(
            "You have no such dataset.",
            [
                ErrorItem(
                    pointer="/dataset_id",
                    code="unknown_dataset",
                    detail="Take the id of one of your datasets: GET /v1/datasets lists them.",
                )
            ],
        )
    if dataset.status == "processing":
        raise DatasetNotReadyError(
            f"The dataset is still processing. Ask GET /v1/datasets/{dataset_id} until it's ready.",
            headers={"Retry-After": "2"},
        )
    if dataset.status != "ready":
        raise DatasetNotReadyError(
            f"The dataset is {dataset.status}. GET /v1/datasets/{dataset_id} lists the findings; "
            "fix them and upload it again."
        )


def get(session: Session, owner: str, job_id: str) -> View:
    """An owner's distillation. Raises NotFoundError, also for somebody else's."""
    row = session.execute(
        select(Job, Student.id)
        .outerjoin(Student, Student.job_id == Job.id)
        .where(Job.id == job_id, Job.owner == owner, Job.kind == KIND)
    ).one_or_none()
    if row is None:
        raise NotFoundError("There is no such job.")
    return View(row[0], ledger.queue_position(session, row[0]), row[1])


def newest(
    session: Session, owner: str, before: str | None, state: str | None, limit: int
) -> list[View]:
    """An owner's distillations, the newest first, beginning behind the id `before`."""
    query = (
        select(Job, Student.id)
        .outerjoin(Student, Student.job_id == Job.id)
        .where(Job.owner == owner, Job.kind == KIND)
    )
    if before is not None:
        query = query.where(Job.id < before)
    if state is not None:
        query = query.where(Job.state == state)
    rows = session.execute(query.order_by(Job.id.desc()).limit(limit)).all()
    return [View(row[0], ledger.queue_position(session, row[0]), row[1]) for row in rows]


def events(session: Session, owner: str, job_id: str, after: int, limit: int) -> list[Event]:
    """Entries of a job's log behind number `after`. Raises NotFoundError."""
    job = get(session, owner, job_id).job
    return ledger.events(session, job.id, after, limit)


def cancel(session: Session, owner: str, job_id: str) -> View:
    """Cancel a job. Raises NotFoundError, and ConflictError when it has ended."""
    job = ledger.request_cancel(session, get(session, owner, job_id).job)
    return View(job, ledger.queue_position(session, job), None)
