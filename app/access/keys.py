"""Access keys: 256 random bits, shown once; only their SHA-256 is kept."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from app.access.scopes import Scope
from app.db import new_id, now, utcnow
from app.errors import ForbiddenError, NotFoundError, UnauthorizedError
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


def authenticate(session: Session, token: str) -> Caller:
    """Who holds this key. Raises UnauthorizedError."""
    sha256 = digest(token)
    key = session.scalars(select(ApiKey).where(ApiKey.sha256 == sha256, is_live())).one_or_none()
    if key is None or not hmac.compare_digest(key.sha256, sha256):
        raise refused()
    return Caller(key_id=key.id, owner=key.owner, scopes=frozenset(key.scopes))


def is_live() -> ColumnElement[bool]:
    """Whether a key opens anything: neither revoked nor expired."""
    fresh = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > utcnow())
    return and_(ApiKey.revoked_at.is_(None), fresh)


def every(session: Session) -> list[ApiKey]:
    """All keys, the oldest first."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.id)))


def any_live(session: Session) -> bool:
    """Whether there is a key that opens something."""
    live = select(func.count()).select_from(ApiKey).where(is_live())
    return bool(session.scalar(live))


def revoke(session: Session, key_id: str) -> ApiKey:
    """Take a key back, for good. Raises NotFoundError."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFoundError("There is no key with this id.")
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
