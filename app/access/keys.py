"""Access keys: 256 random bits, shown once; only their SHA-256 is kept."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from app.access.scopes import Scope
from app.db import new_id, now, utcnow
from app.errors import ConflictError, ForbiddenError, NotFoundError, UnauthorizedError
from app.models import ApiKey

PREFIX = "tdmr_"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from, and what they may do."""

    key_id: str
    owner: str
    scopes: frozenset[str]

    def require(self, scope: Scope) -> None:
        """Raise ForbiddenError unless the key has `scope`."""
        if scope not in self.scopes:
            raise ForbiddenError(f"This key lacks the scope {scope.value}. Use one that has it.")


def create(
    session: Session,
    *,
    owner: str,
    name: str,
    scopes: Iterable[Scope],
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Make a key: its row, and the key itself, which can't be had again."""
    token = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        id=new_id("key"),
        owner=owner,
        name=name,
        sha256=digest(token),
        scopes=sorted(scope.value for scope in scopes),
        created_at=now(session),
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    return key, token


def authenticate(session: Session, sha256: str) -> Caller:
    """Who holds the key with this digest. Raises UnauthorizedError."""
    key = session.scalars(select(ApiKey).where(ApiKey.sha256 == sha256, is_live())).one_or_none()
    if key is None or not hmac.compare_digest(key.sha256, sha256):
        raise refused()
    return Caller(key_id=key.id, owner=key.owner, scopes=frozenset(key.scopes))


def is_live() -> ColumnElement[bool]:
    """Whether a key opens anything: neither revoked nor expired."""
    fresh = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > utcnow())
    return and_(ApiKey.revoked_at.is_(None), fresh)


def known(session: Session, key_id: str, *, lock: bool = False) -> ApiKey:
    """A key, whosever it is; locked until the transaction ends. Raises NotFoundError."""
    key = session.get(ApiKey, key_id, with_for_update=lock or None)
    if key is None:
        raise NotFoundError("There is no such key.")
    return key


def get(session: Session, owner: str, key_id: str, *, lock: bool = False) -> ApiKey:
    """An owner's key. Raises NotFoundError, also for somebody else's."""
    key = known(session, key_id, lock=lock)
    if key.owner != owner:
        raise NotFoundError("There is no such key.")
    return key


def newest(session: Session, owner: str, before: str | None, limit: int) -> list[ApiKey]:
    """An owner's keys, the newest first, beginning behind the id `before`."""
    query = select(ApiKey).where(ApiKey.owner == owner)
    if before is not None:
        query = query.where(ApiKey.id < before)
    return list(session.scalars(query.order_by(ApiKey.id.desc()).limit(limit)))


def rotate(
    session: Session, key: ApiKey, overlap: timedelta, ends: datetime | None = None
) -> tuple[ApiKey, str]:
    """Make a key like `key`, which the caller has locked and which lives on for `overlap` at most.

    The new one gets as long a life as the old one was given, and ends at `ends` at the latest.
    Raises ConflictError unless the old one is live, and wasn't rotated before.
    """
    moment = now(session)
    if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= moment):
        raise ConflictError("The key isn't live any more. Make a new one.")
    if key.replaced_by is not None:
        raise ConflictError(f"The key was rotated already, to {key.replaced_by}.")
    life = None if key.expires_at is None else moment + (key.expires_at - key.created_at)
    new, token = create(
        session,
        owner=key.owner,
        name=key.name,
        scopes=[Scope(scope) for scope in key.scopes],
        expires_at=_earlier(life, ends),
    )
    key.expires_at = _earlier(key.expires_at, moment + overlap)
    key.replaced_by = new.id
    session.flush()
    return new, token


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """The earlier of two ends; None is never."""
    return min((end for end in (one, other) if end is not None), default=None)


def every(session: Session) -> list[ApiKey]:
    """All keys, the oldest first."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.id)))


def any_live(session: Session) -> bool:
    """Whether there is a key that opens something."""
    live = select(func.count()).select_from(ApiKey).where(is_live())
    return bool(session.scalar(live))


def revoke(session: Session, key_id: str) -> ApiKey:
    """Take a key back, for good. Raises NotFoundError."""
    key = known(session, key_id, lock=True)
    if key.revoked_at is None:
        key.revoked_at = now(session)
    session.flush()
    return key


def digest(token: str) -> str:
    """The SHA-256 by which a key is known."""
    # The key is 256 random bits, so that a plain hash of it can't be searched back.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def refused() -> UnauthorizedError:
    """It doesn't say what was wrong with the key."""
    return UnauthorizedError(
        "The access key isn't valid. Send one that is: Authorization: Bearer tdmr_…"
    )
