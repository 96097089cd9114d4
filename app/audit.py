"""The audit log: who did what, written in the transaction that did it.

The guard says who acts while a state-changing request is handled (`acting`), and the server's
database lets `note` speak last in every writing transaction. So a route leaves its row whether it
thinks of it or not; it may say more exactly what the transaction is about. What was refused or
rolled back changed nothing, and isn't there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Index, String, event, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.db import Base, UtcDateTime, new_id, utcnow
from app.models import Json, NullableJson

_SUBJECTS = "audit"


class AuditEntry(Base):
    """One thing that somebody did."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_owner_id", "owner", "id"),
        Index("ix_audit_log_owner_subject_id_id", "owner", "subject_id", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    owner: Mapped[str] = mapped_column(String(100))
    key_id: Mapped[str | None] = mapped_column(String(40))  # None: the operator, by command
    action: Mapped[str] = mapped_column(String(100))  # the route's name
    subject_type: Mapped[str | None] = mapped_column(String(40))
    subject_id: Mapped[str | None] = mapped_column(String(40))
    request_id: Mapped[str | None] = mapped_column(String(64))
    address: Mapped[str | None] = mapped_column(String(100))
    details: Mapped[Json | None] = mapped_column(NullableJson)


class Subject(NamedTuple):
    """What something was done to."""

    type: str | None
    id: str | None
    details: Json | None = None


NOTHING_NAMED = Subject(None, None)


@dataclass
class Act:
    """Who is doing what, and to what unless the transaction says so itself."""

    owner: str
    action: str
    key_id: str | None = None
    request_id: str | None = None
    address: str | None = None
    subject: Subject = NOTHING_NAMED
    noted: bool = False


_ACT: ContextVar[Act | None] = ContextVar("act", default=None)


@contextmanager
def acting(act: Act) -> Iterator[None]:
    """Until the end of the block, also in threads that it waits for, `act` is what is done."""
    token = _ACT.set(act)
    try:
        yield
    finally:
        _ACT.reset(token)


def about(session: Session, type_: str, id_: str, **details: Any) -> None:
    """Say what the transaction does something to; each call is a row of its own."""
    session.info.setdefault(_SUBJECTS, []).append(Subject(type_, id_, details or None))


def nothing(session: Session) -> None:
    """Say that the transaction does nothing of its own: a repeat, or a part of something."""
    session.info[_SUBJECTS] = []


def note(session: Session) -> None:
    """Write down what the transaction did, as its last statement.

    A transaction that names no subject is noted with the act's own, once for the whole act.
    """
    act = _ACT.get()
    if act is None:
        return
    subjects = session.info.get(_SUBJECTS)
    if subjects is None:
        subjects = [] if act.noted else [act.subject]
    if not subjects:
        return
    session.add_all([_entry(act, subject) for subject in subjects])

    @event.listens_for(session, "after_commit", once=True)
    def _committed(_: Session) -> None:
        act.noted = True


def _entry(act: Act, subject: Subject) -> AuditEntry:
    return AuditEntry(
        id=new_id("aud"),
        at=utcnow(),
        owner=act.owner,
        key_id=act.key_id,
        action=act.action,
        subject_type=subject.type,
        subject_id=subject.id,
        request_id=act.request_id,
        address=act.address,
        details=subject.details,
    )


def newest(
    session: Session,
    owner: str,
    before: str | None,
    limit: int,
    *,
    subject_id: str | None = None,
    action: str | None = None,
) -> list[AuditEntry]:
    """An owner's entries, the newest first, beginning behind the id `before`."""
    query = select(AuditEntry).where(AuditEntry.owner == owner)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    if subject_id is not None:
        query = query.where(AuditEntry.subject_id == subject_id)
    if action is not None:
        query = query.where(AuditEntry.action == action)
    return list(session.scalars(query.order_by(AuditEntry.id.desc()).limit(limit)))
