"""Frees what was deleted long enough ago: the row's content first, then the stored files.

In this order no row ever promises a file that is gone. A collector that dies in between leaves
files that no row speaks of, and those are collected anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import ColumnElement, delete, or_, select
from sqlalchemy.orm import Session

from app.db import Database, now
from app.deletion import Row
from app.foundations import service as foundations
from app.jobs.dependants import inherited
from app.models import Dataset, Event, Job, Model, Student, Upload
from app.storage import Storage
from tdmr import failpoint

BATCH = 10  # rows in one transaction; a job brings its log along

Emptying = Callable[[Session], Sequence[str]]

log = structlog.get_logger(__name__)


def free(database: Database, storage: Storage) -> int:
    """One round; how many things were freed. Any number of workers may do it at once."""
    return sum(
        drain(database, storage, emptying)
        for emptying in (_empty_datasets, _empty_models, _empty_students, _empty_jobs)
    )


def drain(database: Database, storage: Storage, emptying: Emptying) -> int:
    """Have rows emptied, batch after batch, and remove what each had; how many they were."""
    total = 0
    while True:
        with database.write() as session:
            folders = emptying(session)
            if folders:
                failpoint.reached("free.written")
        if not folders:
            return total
        failpoint.reached("free.committed")
        for folder in folders:
            log.info("freed", folder=folder)
            storage.delete(folder)
            failpoint.reached("free.removed")
        total += len(folders)


def _due(session: Session, table: type[Row], *also: ColumnElement[bool]) -> Sequence[Row]:
    """Rows whose time is over, locked; another worker has those that are missing."""
    rows = session.scalars(
        select(table)
        .where(table.kept_until <= now(session), *also)
        .order_by(table.kept_until)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        row.kept_until = None
    return rows


def _empty_datasets(session: Session) -> Sequence[str]:
    """What students need of a dataset, its version, they have themselves."""
    rows = _due(session, Dataset)
    for row in rows:
        row.name, row.upload_bytes, row.findings = "", 0, []
        row.classes = row.splits = row.audit = None
        row.file_key = row.file_sha256 = row.gallery_key = None
    ids = [row.id for row in rows]
    checks = select(Job.id).where(Job.dataset_id.in_(ids), Job.kind == "ingest")
    session.execute(delete(Event).where(Event.job_id.in_(checks)))
    session.execute(delete(Upload).where(Upload.dataset_id.in_(ids)))
    return [f"datasets/{id_}" for id_ in ids]


def _empty_models(session: Session) -> Sequence[str]:
    """The architecture stays: what is known of its speed is known by it."""
    rows = _due(session, Model)
    for row in rows:
        row.name, row.bytes, row.findings = "", 0, []
        row.licence = row.file_key = None
    checks = select(Job.id).where(Job.model_id.in_([row.id for row in rows]), Job.kind == "model")
    session.execute(delete(Event).where(Event.job_id.in_(checks)))
    return [foundations.file_key(row.id) for row in rows]


def _empty_students(session: Session) -> Sequence[str]:
    rows = _due(session, Student)
    for row in rows:
        row.metrics, row.files = {}, []
    return [f"students/{row.id}" for row in rows]


def _empty_jobs(session: Session) -> Sequence[str]:
    """The seconds that were spent stay: deleting a job doesn't give them back."""
    rows = _due(session, Job, ~inherited())
    for row in rows:
        row.spec, row.user_metadata = {}, {}
        row.checkpoint = row.furthest = row.progress = row.failure = None
    ids = [row.id for row in rows]
    its_own = select(Job.id).where(or_(Job.id.in_(ids), Job.parent_id.in_(ids)))
    session.execute(delete(Event).where(Event.job_id.in_(its_own)))
    return [f"checkpoints/{id_}" for id_ in ids]
