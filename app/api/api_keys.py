"""/v1/api-keys: make keys, rotate them, take them back. A key never gives more than it has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Response
from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field
from sqlalchemy.orm import Session

from app import audit
from app.access import keys
from app.access.keys import Caller
from app.access.scopes import Scope
from app.api import pages
from app.api.core import CallerDep, CoreDep
from app.api.guard import fails, needs, router
from app.api.pages import After, Limit
from app.api.schemas import Printable
from app.db import now
from app.errors import ConflictError, ErrorItem, ForbiddenError, InvalidError
from app.models import ApiKey
from tdmr.config import Strict
from tdmr.wire.access import ApiKeyMade, ApiKeyOut
from tdmr.wire.base import Page

routes = router()

DAY = 86_400


def _sensible(moment: datetime) -> datetime:
    """In UTC; years that every database and every zone can count with."""
    if not 2000 <= moment.year <= 9000:
        raise ValueError("the year must be from 2000 to 9000")
    return moment.astimezone(UTC)


class ApiKeyIn(Strict):
    """An order for a key."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "nightly build",
                    "scopes": ["datasets:read", "jobs:read", "jobs:write"],
                    "expires_at": "2030-01-01T00:00:00Z",
                }
            ]
        },
    )

    name: Annotated[str, Field(min_length=1, max_length=200), Printable]
    scopes: list[Scope] = Field(
        min_length=1, max_length=100, description="Of those that the key has that asks."
    )
    expires_at: Annotated[AwareDatetime, AfterValidator(_sensible)] | None = Field(
        description="Null: never, which only a key that never expires can give."
    )


class RotateIn(Strict):
    """How to rotate a key."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}]})

    overlap_seconds: int = Field(
        DAY, ge=0, le=7 * DAY, description="For so long the old key works beside the new one."
    )


@routes.post("/api-keys", status_code=201)
@needs(Scope.KEYS_WRITE)
def create_api_key(
    response: Response, core: CoreDep, caller: CallerDep, order: ApiKeyIn
) -> ApiKeyMade:
    """Make a key for yourself. `token` is the key: it is shown this once, and kept nowhere.

    So a repeat can't be answered with it, and `Idempotency-Key` does nothing here: each request
    makes a key. Revoke one whose answer got lost.
    """
    _has_all(caller, order.scopes)
    with core.database.write() as session:
        _check_end(session, caller, order.expires_at)
        key, token = keys.create(
            session,
            owner=caller.owner,
            name=order.name,
            scopes=set(order.scopes),
            expires_at=order.expires_at,
        )
        audit.about(session, "key", key.id, name=key.name, scopes=key.scopes)
    return _made(response, key, token)


@routes.get("/api-keys")
@needs(Scope.KEYS_READ)
def list_api_keys(
    response: Response, core: CoreDep, caller: CallerDep, limit: Limit = 20, after: After = None
) -> Page[ApiKeyOut]:
    """Your keys, the newest first, also those that no longer work."""
    with core.database.read() as session:
        found = keys.newest(session, caller.owner, pages.after_id(after), limit + 1)
    rows, has_more = pages.cut(found, limit)
    cursor = pages.encode(rows[-1].id) if has_more else None
    if cursor is not None:
        pages.link_next(response, "/v1/api-keys", {"limit": limit, "after": cursor})
    return Page(data=[_described(row) for row in rows], has_more=has_more, next_cursor=cursor)


@routes.get("/api-keys/{key_id}")
@needs(Scope.KEYS_READ)
def get_api_key(core: CoreDep, caller: CallerDep, key_id: str) -> ApiKeyOut:
    """A key: what it allows, until when, and when it was last used."""
    with core.database.read() as session:
        return _described(keys.get(session, caller.owner, key_id))


@routes.delete("/api-keys/{key_id}", status_code=204, response_class=Response)
@needs(Scope.KEYS_WRITE)
def revoke_api_key(core: CoreDep, caller: CallerDep, key_id: str) -> Response:
    """Take a key back, for good and at once. Keys that it has made stay."""
    with core.database.write() as session:
        key = keys.get(session, caller.owner, key_id, lock=True)
        if key.revoked_at is not None:
            audit.nothing(session)
        keys.revoke(session, key.id)
    return Response(status_code=204)


@routes.post("/api-keys/{key_id}/rotate", status_code=201)
@needs(Scope.KEYS_WRITE)
@fails(ConflictError)
def rotate_api_key(
    response: Response, core: CoreDep, caller: CallerDep, key_id: str, order: RotateIn
) -> ApiKeyMade:
    """Replace a key by a new one of the same name, scopes and length of life.

    Both work for `overlap_seconds`; then the old one has expired. `token` is shown this once.
    """
    with core.database.write() as session:
        ends = keys.get(session, caller.owner, caller.key_id).expires_at
        old = keys.get(session, caller.owner, key_id, lock=True)
        _has_all(caller, [Scope(scope) for scope in old.scopes])
        new, token = keys.rotate(session, old, timedelta(seconds=order.overlap_seconds), ends)
        until = None if old.expires_at is None else old.expires_at.isoformat()
        audit.about(session, "key", old.id, replaced_by=new.id, until=until)
    return _made(response, new, token)


def _has_all(caller: Caller, scopes: list[Scope]) -> None:
    """Raise ForbiddenError for scopes that the caller's own key lacks."""
    lacking = [place for place, scope in enumerate(scopes) if scope not in caller.scopes]
    if lacking:
        items = [
            ErrorItem(
                pointer=f"/scopes/{place}",
                code="scope_not_held",
                detail=f"The key that asks lacks {scopes[place].value}.",
                allowed=sorted(caller.scopes),
            )
            for place in lacking
        ]
        raise ForbiddenError("A key gives no scope that it lacks.", items)


def _check_end(session: Session, caller: Caller, ends: datetime | None) -> None:
    """Raise InvalidError for an end that is over, or later than the caller's own.

    Else a key lent for a week could make itself a successor for ever.
    """
    own = keys.get(session, caller.owner, caller.key_id).expires_at
    if ends is not None and ends <= now(session):
        raise _wrong_end("too_early", "It must lie in the future.")
    if own is not None and (ends is None or ends > own):
        raise _wrong_end("too_late", f"The key that asks expires at {own.isoformat()} itself.")


def _wrong_end(code: str, detail: str) -> InvalidError:
    item = ErrorItem(pointer="/expires_at", code=code, detail=detail)
    return InvalidError("The key can't expire then.", [item])


def _made(response: Response, key: ApiKey, token: str) -> ApiKeyMade:
    response.headers["Location"] = f"/v1/api-keys/{key.id}"
    response.headers["Cache-Control"] = "no-store"
    return ApiKeyMade(**_described(key).model_dump(), token=token)


def _described(key: ApiKey) -> ApiKeyOut:
    return ApiKeyOut.model_validate({name: getattr(key, name) for name in ApiKeyOut.model_fields})
