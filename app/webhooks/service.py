"""Webhook endpoints and their deliveries, as their owners see them.

Every function works in the caller's transaction. URLs have been checked before.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import new_id, now
from app.errors import (
    ConflictError,
    IdempotencyKeyReusedError,
    NotFoundError,
    TooManyEndpointsError,
)
from app.webhooks import events, signing
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint
from tdmr.wire.webhooks import PING


def create(
    session: Session,
    *,
    owner: str,
    url: str,
    description: str,
    event_types: list[str] | None,
    idempotency_key: str | None,
    request_sha256: str,
    most: int,
) -> WebhookEndpoint:
    """A new endpoint with a secret of its own. Raises TooManyEndpointsError.

    Raises sqlalchemy.exc.IntegrityError when the owner has used this idempotency key before.
    """
    count = select(func.count()).where(WebhookEndpoint.owner == owner)
    if (session.scalar(count) or 0) >= most:
        raise TooManyEndpointsError(f"You have {most} endpoints, as many as may be: delete one.")
    moment = now(session)
    endpoint = WebhookEndpoint(
        id=new_id("whe"),
        owner=owner,
        url=url,
        description=description,
        events=event_types,
        enabled=True,
        secrets=signing.rotated([], signing.new_secret(), moment),
        idempotency_key=idempotency_key,
        request_sha256=request_sha256,
        created_at=moment,
    )
    session.add(endpoint)
    session.flush()
    return endpoint


def earlier(
    session: Session, owner: str, key: str | None, request_sha256: str
) -> WebhookEndpoint | None:
    """The endpoint that an earlier request with the same key made, or None.

    Raises IdempotencyKeyReusedError when that request asked for something else.
    """
    if key is None:
        return None
    found = session.scalars(
        select(WebhookEndpoint).where(
            WebhookEndpoint.owner == owner, WebhookEndpoint.idempotency_key == key
        )
    ).one_or_none()
    if found is not None and found.request_sha256 != request_sha256:
        raise IdempotencyKeyReusedError(
            "This Idempotency-Key was used for another request. Use a new key for a new request."
        )
    return found


def get(session: Session, owner: str, endpoint_id: str, *, lock: bool = False) -> WebhookEndpoint:
    """An owner's endpoint. Raises NotFoundError, also for somebody else's."""
    query = select(WebhookEndpoint).where(
        WebhookEndpoint.id == endpoint_id, WebhookEndpoint.owner == owner
    )
    endpoint = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if endpoint is None:
        raise NotFoundError("There is no such webhook endpoint.")
    return endpoint


def newest(session: Session, owner: str, before: str | None, limit: int) -> list[WebhookEndpoint]:
    """An owner's endpoints, the newest first, beginning behind the id `before`."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.owner == owner)
    if before is not None:
        query = query.where(WebhookEndpoint.id < before)
    return list(session.scalars(query.order_by(WebhookEndpoint.id.desc()).limit(limit)))


def change(
    session: Session, owner: str, endpoint_id: str, changes: dict[str, Any]
) -> WebhookEndpoint:
    """Write new values into an endpoint's columns. Raises NotFoundError.

    One that is enabled starts with a clean record; what waited for it is sent then.
    """
    endpoint = get(session, owner, endpoint_id, lock=True)
    for name, value in changes.items():
        setattr(endpoint, name, value)
    if "enabled" in changes:
        endpoint.disabled_reason = endpoint.failing_since = None
    session.flush()
    return endpoint


def delete(session: Session, owner: str, endpoint_id: str) -> None:
    """Forget an endpoint and all its deliveries. Raises NotFoundError."""
    session.delete(get(session, owner, endpoint_id, lock=True))
    session.flush()


def rotate(session: Session, owner: str, endpoint_id: str) -> WebhookEndpoint:
    """Give an endpoint a new secret; those before it sign for a day more. Or NotFoundError."""
    endpoint = get(session, owner, endpoint_id, lock=True)
    endpoint.secrets = signing.rotated(endpoint.secrets, signing.new_secret(), now(session))
    session.flush()
    return endpoint


def secret_of(endpoint: WebhookEndpoint) -> str:
    """The newest secret: for the answers that show it once."""
    secret: str = endpoint.secrets[0]["secret"]
    return secret


def ping(session: Session, owner: str, endpoint_id: str) -> WebhookDelivery:
    """Send a test message. Raises NotFoundError and, for a disabled endpoint, ConflictError."""
    endpoint = _enabled(get(session, owner, endpoint_id))
    made = events.delivery(endpoint, PING, {"endpoint_id": endpoint.id}, now(session))
    session.add(made)
    session.flush()
    return made


def deliveries(
    session: Session,
    owner: str,
    endpoint_id: str,
    before: str | None,
    status: str | None,
    limit: int,
) -> list[WebhookDelivery]:
    """An endpoint's deliveries, the newest first, behind the id `before`. Or NotFoundError."""
    get(session, owner, endpoint_id)
    query = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id)
    if before is not None:
        query = query.where(WebhookDelivery.id < before)
    if status is not None:
        query = query.where(WebhookDelivery.status == status)
    return list(session.scalars(query.order_by(WebhookDelivery.id.desc()).limit(limit)))


def replay(session: Session, owner: str, endpoint_id: str, delivery_id: str) -> WebhookDelivery:
    """Send a message again, now and on the schedule's first step, with the id that it has.

    Raises NotFoundError and, for a disabled endpoint, ConflictError.
    """
    endpoint = get(session, owner, endpoint_id)
    found = session.scalars(
        select(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.endpoint_id == endpoint_id)
        .with_for_update()
    ).one_or_none()
    if found is None:
        raise NotFoundError("The endpoint has no such delivery.")
    _enabled(endpoint)
    found.status, found.failures, found.ended_at = "pending", 0, None
    found.next_attempt_at = now(session)
    session.flush()
    return found


def _enabled(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    if not endpoint.enabled:
        raise ConflictError("The endpoint is disabled: enable it first, with PATCH.")
    return endpoint
