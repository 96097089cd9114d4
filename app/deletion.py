"""Deletion: seen at once, undone for a while, final when the collector comes (`app.keeping`).

Every function works in the caller's transaction.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app import audit
from app.db import now
from app.errors import GoneError, NotFoundError
from app.models import Deletable
from app.settings import Settings

Row = TypeVar("Row", bound=Deletable)


def locked(
    session: Session, table: type[Row], owner: str, id_: str, *also: ColumnElement[bool]
) -> Row:
    """An owner's row, deleted or not, locked. Raises NotFoundError, also for somebody else's."""
    row = session.scalars(
        select(table)
        .where(table.id == id_, table.owner == owner, *also)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no such {noun(table)}.")
    return row


def delete(session: Session, row: Deletable, settings: Settings, *, permanently: bool) -> None:
    """Delete a locked row; `permanently` gives up the time in which it could be restored.

    What is deleted already stays so, and is only ever freed earlier.
    """
    moment = now(session)
    grace = 0.0 if permanently else settings.deleted_grace_seconds
    if row.deleted_at is None:
        row.deleted_at = moment
        row.kept_until = moment + timedelta(seconds=grace)
    elif permanently and row.kept_until is not None and row.kept_until > moment:
        row.kept_until = moment
    else:
        audit.nothing(session)


def restore(session: Session, row: Deletable) -> None:
    """Bring a locked row back. Raises GoneError when its time is over."""
    if row.deleted_at is None:
        audit.nothing(session)
        return
    if row.kept_until is None or row.kept_until <= now(session):
        raise gone(type(row), None)
    row.deleted_at = row.kept_until = None
    session.flush()


def check(row: Deletable) -> None:
    """Raise GoneError for what is deleted."""
    if row.deleted_at is not None:
        raise gone(type(row), row.kept_until)


def gone(table: type[Deletable], kept_until: datetime | None) -> GoneError:
    """What to say of something deleted that can be restored until then; None: not any more."""
    if kept_until is None:
        return GoneError(f"The {noun(table)} was deleted, and can't be brought back.")
    until = kept_until.isoformat(timespec="seconds").replace("+00:00", "Z")
    return GoneError(f"The {noun(table)} was deleted. It can be restored until {until}.")


def noun(table: type[Deletable]) -> str:
    """What users call a row of `table`."""
    return table.__name__.lower()
