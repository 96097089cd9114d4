"""Browser sessions: a key, proven once, stands behind a cookie until it ends.

Only the SHA-256 of the cookie is kept. A session opens nothing by itself: it names the key, whose
own row says on every request what it still opens.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.access import keys
from app.access.keys import Caller
from app.db import now, utcnow
from app.models import ApiKey, BrowserSession

LIFETIME = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Whose browser it is: `key` is the digest of the key, `session` that of the cookie."""

    caller: Caller
    key: str
    session: str


def begin(session: Session, key: str) -> str:
    """Sign in with the key of this digest; the cookie's value. Raises UnauthorizedError.

    Forgets the sessions that are over.
    """
    caller = keys.authenticate(session, key)
    cookie, moment = secrets.token_urlsafe(32), now(session)
    session.execute(delete(BrowserSession).where(BrowserSession.expires_at <= moment))
    session.add(
        BrowserSession(
            sha256=keys.digest(cookie),
            key_id=caller.key_id,
            created_at=moment,
            expires_at=moment + LIFETIME,
        )
    )
    session.flush()
    return cookie


def find(session: Session, cookie: str) -> SignedIn | None:
    """Who signed in with this cookie, if the session and its key are live."""
    return find_by_digest(session, keys.digest(cookie))


def find_by_digest(session: Session, sha256: str) -> SignedIn | None:
    """As `find`, by the digest of the cookie."""
    key = session.scalars(
        select(ApiKey)
        .join(BrowserSession, BrowserSession.key_id == ApiKey.id)
        .where(
            BrowserSession.sha256 == sha256, BrowserSession.expires_at > utcnow(), keys.is_live()
        )
    ).one_or_none()
    if key is None:
        return None
    return SignedIn(Caller(key.id, key.owner, frozenset(key.scopes)), key.sha256, sha256)


def end(session: Session, sha256: str) -> None:
    """Sign out; a session that is over already is no error."""
    session.execute(delete(BrowserSession).where(BrowserSession.sha256 == sha256))
