"""Retention: what has grown old enough goes, where the operator has said how old that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy import CursorResult, Delete, delete, exists, null, select
from sqlalchemy.orm import Session

from app.audit import AuditEntry
from app.db import Database, now
from app.jobs.dependants import inherited, packaging
from app.jobs.states import ENDED
from app.keeping.freeing import BATCH, drain
from app.models import Dataset, Event, Job, Model
from app.settings import Settings
from app.storage import Storage

AUDIT_BATCH = 1000  # rows in one transaction

Checked = TypeVar("Checked", Dataset, Model)

log = structlog.get_logger(__name__)


def apply(database: Database, storage: Storage, settings: Settings) -> None:
    """One round. Any number of workers may do it at once."""
    if (age := settings.retain_invalid_seconds) is not None:
        _repeat(database, "invalid_datasets", partial(_delete_invalid, Dataset), age)
        _repeat(database, "invalid_models", partial(_delete_invalid, Model), age)
    if (age := settings.retain_events_seconds) is not None:
        _repeat(database, "events", _delete_events, age)
    if (age := settings.retain_audit_seconds) is not None:
        _repeat(database, "audit_log", _delete_audit, age)
    if (age := settings.retain_checkpoints_seconds) is not None:
        drain(database, storage, lambda session: _forget_checkpoints(session, age))


def _repeat(
    database: Database, what: str, remove: Callable[[Session, float], int], age: float
) -> None:
    """Remove batches, each in a transaction of its own, until there is nothing more."""
    total = 0
    while True:
        with database.write() as session:
            removed = remove(session, age)
        if not removed:
            break
        total += removed
    if total:
        log.info("retention_over", what=what, rows=total)


def _delete_invalid(table: type[Checked], session: Session, age: float) -> int:
    """They can't be restored: nothing can be done with them, and their bytes went long ago."""
    moment = now(session)
    rows = session.scalars(
        select(table)
        .where(
            table.status == "invalid",
            table.deleted_at.is_(None),
            table.settled_at <= moment - timedelta(seconds=age),
        )
        .order_by(table.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        row.deleted_at = row.kept_until = moment
    return len(rows)


def _delete_events(session: Session, age: float) -> int:
    """Whole logs, of jobs to which nothing happens any more: what is there has no gaps."""
    ended = (
        select(Job.id)
        .where(
            Job.state.in_(ENDED),
            Job.ended_at <= now(session) - timedelta(seconds=age),
            exists().where(Event.job_id == Job.id),
            ~packaging(),
        )
        .order_by(Job.id)
        .limit(BATCH)
    )
    ids = session.scalars(ended).all()
    return _rows(session, delete(Event).where(Event.job_id.in_(ids)))


def _delete_audit(session: Session, age: float) -> int:
    """The oldest by id, which is by time: so nothing younger is looked at."""
    oldest = select(AuditEntry.id, AuditEntry.at).order_by(AuditEntry.id).limit(AUDIT_BATCH)
    latest = now(session) - timedelta(seconds=age)
    ids = [id_ for id_, at in session.execute(oldest) if at <= latest]
    return _rows(session, delete(AuditEntry).where(AuditEntry.id.in_(ids)))


def _rows(session: Session, statement: Delete) -> int:
    result = session.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount


def _forget_checkpoints(session: Session, age: float) -> Sequence[str]:
    rows = session.scalars(
        select(Job)
        .where(
            Job.state.in_(ENDED),
            Job.ended_at <= now(session) - timedelta(seconds=age),
            Job.checkpoint.is_not(null()),
            ~packaging(),
            ~inherited(),
        )
        .order_by(Job.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        row.checkpoint = None
    return [f"checkpoints/{row.id}" for row in rows]
