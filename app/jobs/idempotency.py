"""Idempotency keys: a request that is sent twice makes one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import IdempotencyKeyReusedError
from app.models import Job, Upload

Row = TypeVar("Row", Job, Upload)


@dataclass(frozen=True)
class Idempotency:
    """A request's key, if it brought one, and the hash of all that it asks for."""

    key: str | None
    request_sha256: str


def is_known(session: Session, owner: str, key: str) -> bool:
    """Whether a request with this key has made something, whatever it asked for."""
    made = select(Job.id).where(Job.owner == owner, Job.idempotency_key == key)
    return session.scalar(made) is not None


def earlier(session: Session, owner: str, idempotency: Idempotency) -> Job | None:
    """The job that an earlier request with the same key made, or None.

    Raises IdempotencyKeyReusedError when that request asked for something else.
    """
    return _earlier(session, Job, owner, idempotency)


def earlier_upload(session: Session, owner: str, idempotency: Idempotency) -> Upload | None:
    """The resumable upload that an earlier request with the same key began, or None.

    Raises IdempotencyKeyReusedError as `earlier`.
    """
    return _earlier(session, Upload, owner, idempotency)


def _earlier(
    session: Session, table: type[Row], owner: str, idempotency: Idempotency
) -> Row | None:
    if idempotency.key is None:
        return None
    row = session.scalars(
        select(table).where(table.owner == owner, table.idempotency_key == idempotency.key)
    ).one_or_none()
    if row is not None and row.request_sha256 != idempotency.request_sha256:
        raise IdempotencyKeyReusedError(
            "This Idempotency-Key was used for another request. Use a new key for a new request."
        )
    return row
