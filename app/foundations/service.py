"""Own foundations: weights come in, a check settles them, and a job can then name them.

Every function works in the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import audit, deletion
from app.db import new_id, now
from app.errors import ModelInUseError, NotFoundError
from app.jobs import moves, needed
from app.jobs.idempotency import Idempotency
from app.models import Job, Model
from app.settings import Settings
from app.storage import Storage, Stored
from tdmr import own
from tdmr.config import JobSpec
from tdmr.errors import Failure
from tdmr.own import CheckOptions, OwnModel, Report
from tdmr.wire.datasets import Finding

KIND = "model"
FOLDER = "models"
DAY = 86_400.0
# A file in half precision is loaded beside the model's own single precision, and beside random
# weights; and pictures are shown to it.
BASE_MEMORY = 2 * 2**30
COPIES = 6
BASE_CPU_SECONDS = 600
CPU_SECONDS_PER_MIB = 1


@dataclass(frozen=True)
class Checked:
    """A model and the job that checks it."""

    model: Model
    job: Job | None


def new_model_id() -> str:
    """An id for a model whose weights are about to be stored."""
    return new_id("mod")


def file_key(model_id: str) -> str:
    """Where the weights of a model are stored."""
    return f"{FOLDER}/{model_id}.safetensors"


def create(
    session: Session,
    *,
    model_id: str,
    owner: str,
    name: str,
    architecture: str,
    licence: str | None,
    upload: Stored,
    idempotency: Idempotency,
    settings: Settings,
) -> Checked:
    """Note stored weights and queue their check."""
    model = Model(
        id=model_id,
        owner=owner,
        name=name,
        architecture=architecture,
        licence=licence,
        status="processing",
        file_key=upload.key,
        bytes=upload.bytes,
        sha256=upload.sha256,
        findings=[],
        created_at=now(session),
    )
    session.add(model)
    session.flush()
    job = moves.submit(
        session,
        owner=owner,
        kind=KIND,
        dataset_id=None,
        model_id=model.id,
        spec={},
        idempotency_key=idempotency.key,
        request_sha256=idempotency.request_sha256,
        max_attempts=settings.max_attempts,
        ring=settings.broker_url is not None,
    )
    audit.about(session, "model", model.id, bytes=upload.bytes)
    return Checked(model, job)


def get(session: Session, owner: str, model_id: str) -> Checked:
    """An owner's model. Raises NotFoundError, also for somebody else's, and GoneError."""
    row = session.execute(
        select(Model, Job)
        .outerjoin(Job, (Job.model_id == Model.id) & (Job.kind == KIND))
        .where(Model.id == model_id, Model.owner == owner)
    ).one_or_none()
    if row is None:
        raise NotFoundError("There is no such model.")
    deletion.check(row[0])
    return Checked(row[0], row[1])


def newest(session: Session, owner: str, before: str | None, limit: int) -> list[Model]:
    """An owner's models, the newest first, beginning behind the id `before`."""
    query = select(Model).where(Model.owner == owner, Model.deleted_at.is_(None))
    if before is not None:
        query = query.where(Model.id < before)
    return list(session.scalars(query.order_by(Model.id.desc()).limit(limit)))


def named(session: Session, owner: str, name: str) -> Model | None:
    """The owner's model that an order names; it isn't deleted before the transaction is over."""
    return session.scalars(
        select(Model)
        .where(Model.id == name, Model.owner == owner, Model.deleted_at.is_(None))
        .with_for_update(read=True)
        .execution_options(populate_existing=True)
    ).one_or_none()


def as_known(session: Session, owner: str, spec: JobSpec) -> JobSpec:
    """An order as the catalog knows it: with the architecture in place of an own foundation."""
    model = session.get(Model, spec.foundation) if own.is_own(spec.foundation) else None
    if model is None or model.owner != owner or model.deleted_at is not None:
        return spec
    return spec.model_copy(update={"foundation": model.architecture})


def delete(
    session: Session, owner: str, model_id: str, settings: Settings, *, permanently: bool
) -> None:
    """Delete a model. Raises NotFoundError, and ModelInUseError, which names the jobs."""
    model = deletion.locked(session, Model, owner, model_id)
    needed.check(session, Job.model_id == model_id, "model", KIND, ModelInUseError)
    deletion.delete(session, model, settings, permanently=permanently)


def restore(session: Session, owner: str, model_id: str) -> Checked:
    """Bring a deleted model back. Raises NotFoundError and GoneError."""
    deletion.restore(session, deletion.locked(session, Model, owner, model_id))
    return get(session, owner, model_id)


def check_options(model: Model) -> CheckOptions:
    """The limits under which weights are checked: they grow with the file."""
    return CheckOptions(
        model=model.id,
        memory_bytes=BASE_MEMORY + COPIES * model.bytes,
        cpu_seconds=BASE_CPU_SECONDS + CPU_SECONDS_PER_MIB * (model.bytes // 2**20),
    )


def about(model: Model) -> OwnModel:
    """What a job is told of a model."""
    return OwnModel(
        name=model.name,
        architecture=model.architecture,
        licence=model.licence,
        sha256=model.sha256,
    )


def settle(session: Session, model_id: str, report: Report) -> str | None:
    """Write down what the check found: `ready`, or `invalid`.

    Gives the storage key of weights that nothing can be done with: delete it after the commit.
    """
    model = _processing(session, model_id)
    if model is None:
        return None
    model.params, model.input_size = report.params, report.input_size
    model.fingerprint = report.fingerprint
    model.findings = [finding.model_dump(mode="json") for finding in report.findings]
    model.status, model.settled_at = "ready" if report.ok else "invalid", now(session)
    unwanted = None
    if not report.ok:
        unwanted, model.file_key = model.file_key, None
    session.flush()
    return unwanted


def settle_failed(session: Session, model_id: str, failure: Failure) -> str | None:
    """Mark a model invalid whose check itself came to a bad end; else as `settle`."""
    finding = Finding(
        code=failure.code,
        severity="error",
        detail=failure.detail,
        advice=failure.suggestion or "Upload it again.",
    )
    return settle(session, model_id, Report(findings=[finding]))


def forget_orphans(session: Session, storage: Storage, seconds: float = DAY) -> None:
    """Delete weights that no row speaks of: a process died between two steps, long ago."""
    for key in storage.older_than(seconds, FOLDER):
        if session.scalar(select(Model.id).where(Model.file_key == key)) is None:
            storage.delete(key)


def _processing(session: Session, model_id: str) -> Model | None:
    """The model, locked, unless it's settled already."""
    return session.scalars(
        select(Model).where(Model.id == model_id, Model.status == "processing").with_for_update()
    ).one_or_none()
