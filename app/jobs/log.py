"""Each job's own log: numbered without gaps, written in the transaction that it speaks of."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import now
from app.models import Event, Json


def append(session: Session, job_id: str, type_: str, data: Json) -> None:
    """Add an entry. The caller holds the job's row, so that numbers commit in order."""
    last = session.scalar(select(func.max(Event.seq)).where(Event.job_id == job_id))
    session.add(Event(job_id=job_id, seq=(last or 0) + 1, at=now(session), type=type_, data=data))
    session.flush()


def read(session: Session, job_id: str, after: int, limit: int) -> list[Event]:
    """At most `limit` entries, in order, beginning behind number `after`."""
    return list(
        session.scalars(
            select(Event)
            .where(Event.job_id == job_id, Event.seq > after)
            .order_by(Event.seq)
            .limit(limit)
        )
    )
