"""Datasets: an upload comes in, a check settles it, and a job can then be trained on it.

Every function works in the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import audit, deletion
from app.datasets.options import CheckOptions
from app.db import new_id, now
from app.errors import DatasetInUseError, NotFoundError
from app.jobs import moves, needed
from app.jobs.idempotency import Idempotency
from app.models import Dataset, Job
from app.settings import Settings
from app.storage import Storage, Stored
from app.webhooks import events as webhooks
from tdmr.errors import Failure
from tdmr.wire.datasets import Finding

KIND = "ingest"
UPLOADS = "uploads"
DAY = 86_400.0
BASE_MEMORY = 2 * 2**30
BYTES_PER_PIXEL = 16  # decoding holds the image in its own mode and, for some formats, twice
BASE_CPU_SECONDS = 300
CPU_SECONDS_PER_MIB = 4


@dataclass(frozen=True)
class Checked:
    """A dataset and the job that checks it."""

    dataset: Dataset
    job: Job | None


@dataclass(frozen=True)
class Published:
    """The stored files of a dataset that is ready."""

    dataset: Stored
    gallery: Stored


def upload_key(dataset_id: str) -> str:
    """Where the upload of a dataset is stored."""
    return f"{UPLOADS}/{dataset_id}"


def create(
    session: Session,
    *,
    dataset_id: str,
    owner: str,
    name: str,
    upload: Stored,
    idempotency: Idempotency,
    settings: Settings,
) -> Checked:
    """Note a stored upload and queue its check."""
    dataset = Dataset(
        id=dataset_id,
        owner=owner,
        name=name,
        status="processing",
        upload_key=upload.key,
        upload_bytes=upload.bytes,
        upload_sha256=upload.sha256,
        findings=[],
        created_at=now(session),
    )
    session.add(dataset)
    session.flush()
    job = moves.submit(
        session,
        owner=owner,
        kind=KIND,
        dataset_id=dataset.id,
        spec={},
        idempotency_key=idempotency.key,
        request_sha256=idempotency.request_sha256,
        max_attempts=settings.max_attempts,
        ring=settings.broker_url is not None,
    )
    audit.about(session, "dataset", dataset.id, bytes=upload.bytes)
    return Checked(dataset, job)


def new_dataset_id() -> str:
    """An id for a dataset whose upload is about to be stored."""
    return new_id("ds")


def get(session: Session, owner: str, dataset_id: str) -> Checked:
    """An owner's dataset. Raises NotFoundError, also for somebody else's, and GoneError."""
    row = session.execute(
        select(Dataset, Job)
        .outerjoin(Job, (Job.dataset_id == Dataset.id) & (Job.kind == KIND))
        .where(Dataset.id == dataset_id, Dataset.owner == owner)
        .order_by(Job.id.desc())
        .limit(1)
    ).first()
    if row is None:
        raise NotFoundError("There is no such dataset.")
    deletion.check(row[0])
    return Checked(row[0], row[1])


def newest(session: Session, owner: str, before: str | None, limit: int) -> list[Dataset]:
    """An owner's datasets, the newest first, beginning behind the id `before`."""
    query = select(Dataset).where(Dataset.owner == owner, Dataset.deleted_at.is_(None))
    if before is not None:
        query = query.where(Dataset.id < before)
    return list(session.scalars(query.order_by(Dataset.id.desc()).limit(limit)))


def delete(
    session: Session, owner: str, dataset_id: str, settings: Settings, *, permanently: bool
) -> None:
    """Delete a dataset. Raises NotFoundError, and DatasetInUseError, which names the jobs."""
    dataset = deletion.locked(session, Dataset, owner, dataset_id)
    needed.check(session, Job.dataset_id == dataset_id, "dataset", KIND, DatasetInUseError)
    deletion.delete(session, dataset, settings, permanently=permanently)


def restore(session: Session, owner: str, dataset_id: str) -> Checked:
    """Bring a deleted dataset back. Raises NotFoundError and GoneError."""
    deletion.restore(session, deletion.locked(session, Dataset, owner, dataset_id))
    return get(session, owner, dataset_id)


def check_options(dataset: Dataset, settings: Settings) -> CheckOptions:
    """The limits under which a dataset's upload is checked: the time grows with its size."""
    mebibytes = dataset.upload_bytes // 2**20
    return CheckOptions(
        max_entries=settings.max_entries,
        max_unpacked_bytes=settings.max_unpacked_bytes,
        max_image_bytes=settings.max_image_bytes,
        max_image_pixels=settings.max_image_pixels,
        memory_bytes=BASE_MEMORY + BYTES_PER_PIXEL * settings.max_image_pixels,
        cpu_seconds=BASE_CPU_SECONDS + CPU_SECONDS_PER_MIB * mebibytes,
    )


def settle(
    session: Session, dataset_id: str, report: dict[str, Any], files: Published | None
) -> str | None:
    """Write down what the check found: `ready` with its files, or `invalid`.

    Gives the storage key of the upload, which isn't needed any more: delete it after the commit.
    """
    dataset = _processing(session, dataset_id)
    if dataset is None:
        return None
    if report["ok"]:
        assert files is not None, "a good upload has a canonical file"
        dataset.version = report["version"]
        dataset.classes = report["classes"]
        dataset.splits = report["splits"]
        dataset.file_key, dataset.gallery_key = files.dataset.key, files.gallery.key
        dataset.file_sha256 = files.dataset.sha256
    return _finish(session, dataset, "ready" if report["ok"] else "invalid", report["findings"])


def note_audit(
    session: Session, dataset_id: str, job_id: str, foundation: str, audit: dict[str, Any]
) -> None:
    """Keep what a job's foundation says of a dataset; the newest audit stays."""
    dataset = session.get_one(Dataset, dataset_id, with_for_update=True)
    dataset.audit = {"job_id": job_id, "foundation": foundation, **audit}


def settle_failed(session: Session, dataset_id: str, failure: Failure) -> str | None:
    """Mark a dataset invalid whose check itself came to a bad end; else as `settle`."""
    dataset = _processing(session, dataset_id)
    if dataset is None:
        return None
    finding = Finding(
        code=failure.code,
        severity="error",
        detail=failure.detail,
        advice=failure.suggestion or "Upload it again.",
    )
    return _finish(session, dataset, "invalid", [finding.model_dump(mode="json")])


def forget_orphans(session: Session, storage: Storage, seconds: float = DAY) -> None:
    """Delete uploads that no dataset waits for: a process died between two steps, long ago."""
    for key in storage.older_than(seconds, UPLOADS):
        if session.scalar(select(Dataset.id).where(Dataset.upload_key == key)) is None:
            storage.delete(key)


def _processing(session: Session, dataset_id: str) -> Dataset | None:
    """The dataset, locked, unless it's settled already."""
    return session.scalars(
        select(Dataset)
        .where(Dataset.id == dataset_id, Dataset.status == "processing")
        .with_for_update()
    ).one_or_none()


def _finish(
    session: Session, dataset: Dataset, status: str, findings: list[dict[str, Any]]
) -> str | None:
    upload, dataset.upload_key = dataset.upload_key, None
    dataset.status = status
    dataset.findings = findings
    dataset.settled_at = now(session)
    session.flush()
    webhooks.dataset_settled(session, dataset)
    return upload
