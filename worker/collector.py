"""Removes what has been kept for long enough, and stored files that no row speaks of.

Those are left by attempts that died between two steps.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets import resumable
from app.datasets import service as datasets
from app.db import Database
from app.foundations import service as foundations
from app.jobs.claims import Checkpoint
from app.jobs.states import ENDED, HELD, State
from app.keeping import freeing, retention
from app.models import Dataset, Job, Student
from app.settings import Settings
from app.storage import Storage
from worker.site import views

JOB_DIGITS = 28  # of a job's id behind its prefix: see app.db.new_id

log = structlog.get_logger(__name__)


def collect(database: Database, storage: Storage, settings: Settings) -> int:
    """One round over all files older than a lease; gives how many were removed.

    What has been kept for long enough goes first, and isn't counted.
    What a running attempt is about to publish is left alone: its job is held by that attempt.
    """
    judges = {
        "checkpoints": _checkpoint_wanted,
        "trained": _trained_wanted,
        "students": _student_wanted,
        "datasets": _dataset_wanted,
    }
    retention.apply(database, storage, settings)
    freeing.free(database, storage)
    forget_views(database, settings)
    removed = 0
    with database.read() as session:
        datasets.forget_orphans(session, storage)
        foundations.forget_orphans(session, storage)
        for folder, wanted in judges.items():
            for key in storage.older_than(settings.lease_seconds, folder):
                if not wanted(session, key):
                    log.info("collected", key=key)
                    storage.delete(key)
                    removed += 1
    storage.forget_staged(datasets.DAY)
    return removed + resumable.forget(database, storage)


def forget_views(database: Database, settings: Settings) -> None:
    """Remove what this machine's cache holds of images that no dataset has any more."""
    found = {path.name: path for path in views(settings).glob("*")}
    with database.read() as session:
        live = select(Dataset.version).where(
            Dataset.version.in_(list(found)), Dataset.file_key.is_not(None)
        )
        kept = set(session.scalars(live))
    for name in found.keys() - kept:
        log.info("views_forgotten", version=name)
        shutil.rmtree(found[name], ignore_errors=True)


def _checkpoint_wanted(session: Session, key: str) -> bool:
    _, job_id, name = key.split("/", 2)
    job = session.get(Job, job_id)
    if job is None:
        return False
    known = Checkpoint.model_validate(job.checkpoint).files.values() if job.checkpoint else ()
    return any(file.key == key for file in known) or _held(job, name.partition("-")[0])


def _trained_wanted(session: Session, key: str) -> bool:
    job_id, _, attempt = key.split("/", 2)[1].rpartition("-")
    job = session.get(Job, job_id)
    if job is None or _held(job, attempt):
        return job is not None
    package = session.scalars(select(Job).where(Job.parent_id == job_id)).one_or_none()
    if package is None or State(package.state) in ENDED:
        return False
    return any(file["key"] == key for file in package.spec.get("trained", ()))


def _student_wanted(session: Session, key: str) -> bool:
    student_id = key.split("/", 2)[1]
    student = session.get(Student, student_id)
    if student is not None:
        return any(file["key"] == key for file in student.files)
    # See worker.kinds.student_id: the package's id, and its attempt in hex.
    name = student_id.removeprefix("stu_")
    job = session.get(Job, f"job_{name[:JOB_DIGITS]}")
    return job is not None and _held(job, str(int(name[JOB_DIGITS:] or "0", 16)))


def _dataset_wanted(session: Session, key: str) -> bool:
    _, dataset_id, name = key.split("/", 2)
    dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        return False
    checks = session.scalars(
        select(Job).where(Job.dataset_id == dataset_id, Job.kind == "ingest")
    ).all()
    attempt = Path(name).stem.partition("-")[2]
    published = key in (dataset.file_key, dataset.gallery_key)
    return published or any(_held(job, attempt) for job in checks)


def _held(job: Job, attempt: str) -> bool:
    """Whether this attempt runs now, and may be about to speak of its files."""
    return State(job.state) in HELD and str(job.attempt) == attempt
