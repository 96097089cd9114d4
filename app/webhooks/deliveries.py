"""What senders do to deliveries: take those that are due, and write down how it went.

A claim raises `attempt` and holds a lease; a result names the attempt. A sender that dies leaves
a lease that runs out, and another sends the same message under the same id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, delete, func, or_, select, update
from sqlalchemy.orm import Session

from app.db import now
from app.models import Json
from app.webhooks import schedule, signing
from app.webhooks.network import Answer
from app.webhooks.signing import Secret
from app.webhooks.tables import WebhookDelivery as Delivery
from app.webhooks.tables import WebhookEndpoint as Endpoint
from tdmr.wire.webhooks import AttemptOut

LEASE = timedelta(seconds=60)  # an attempt takes a quarter of it at most
PER_ENDPOINT = 2  # attempts at once
KEPT_ATTEMPTS = 30
GONE = 410


@dataclass(frozen=True)
class Claim:
    """One attempt: what to send, where to, signed with what. `attempt` is the fence."""

    id: str
    endpoint_id: str
    attempt: int
    body: str = field(repr=False)
    url: str = field(repr=False)  # may hold a token of the receiver's
    secrets: list[Secret] = field(repr=False)
    at: datetime


def due(session: Session, limit: int) -> Sequence[str]:
    """The next deliveries to attempt: every endpoint's first one before any endpoint's second.

    An endpoint with PER_ENDPOINT attempts in flight gets no more: the slow ones among them can't
    take every place. What waits for a disabled endpoint isn't due.
    """
    return session.scalars(_due(now(session), limit)).all()


def _due(moment: datetime, limit: int) -> Select[str]:
    busy = (
        select(Delivery.endpoint_id, func.count().label("attempts"))
        .where(Delivery.status == "pending", Delivery.lease_until > moment)
        .group_by(Delivery.endpoint_id)
        .subquery()
    )
    own = func.row_number().over(
        partition_by=Delivery.endpoint_id, order_by=(Delivery.next_attempt_at, Delivery.id)
    )
    turns = (
        select(Delivery.id, (own + func.coalesce(busy.c.attempts, 0)).label("turn"))
        .join(Endpoint, Endpoint.id == Delivery.endpoint_id)
        .outerjoin(busy, busy.c.endpoint_id == Delivery.endpoint_id)
        .where(Endpoint.enabled, *_ready(moment))
        .subquery()
    )
    return (
        select(Delivery.id)
        .join(turns, turns.c.id == Delivery.id)
        .where(turns.c.turn <= PER_ENDPOINT, *_ready(moment))
        .order_by(turns.c.turn, Delivery.next_attempt_at, Delivery.id)
        .limit(limit)
    )


def _ready(moment: datetime) -> tuple[ColumnElement[bool], ...]:
    free = or_(Delivery.lease_until.is_(None), Delivery.lease_until <= moment)
    return (Delivery.status == "pending", Delivery.next_attempt_at <= moment, free)


def claim(session: Session, limit: int) -> list[Claim]:
    """Take at most `limit` deliveries that are due; of many senders, each has one winner."""
    moment = now(session)
    ids = session.scalars(_due(moment, limit).with_for_update(skip_locked=True, of=Delivery)).all()
    if not ids:
        return []
    session.execute(
        update(Delivery)
        .where(Delivery.id.in_(ids))
        .values(attempt=Delivery.attempt + 1, lease_until=moment + LEASE)
        .execution_options(synchronize_session=False)
    )
    rows = session.execute(
        select(Delivery, Endpoint)
        .join(Endpoint, Endpoint.id == Delivery.endpoint_id)
        .where(Delivery.id.in_(ids))
        .order_by(Delivery.next_attempt_at, Delivery.id)
    )
    return [
        Claim(
            id=row.id,
            endpoint_id=row.endpoint_id,
            attempt=row.attempt,
            body=row.body,
            url=endpoint.url,
            secrets=signing.live(endpoint.secrets, moment),
            at=moment,
        )
        for row, endpoint in rows
    ]


def record(
    session: Session, taken: Claim, answer: Answer, *, seconds: float, draw: float
) -> str | None:
    """Write down how an attempt went, and give the delivery's status; None when it isn't its own.

    `draw` is random, from 0 to 1: see `schedule.delay`. The endpoint is locked before the
    delivery, as whoever deletes it does.
    """
    endpoint = session.get(Endpoint, taken.endpoint_id, with_for_update={"key_share": True})
    row = session.scalars(
        select(Delivery)
        .where(
            Delivery.id == taken.id,
            Delivery.attempt == taken.attempt,
            Delivery.status == "pending",
        )
        .with_for_update()
    ).one_or_none()
    if endpoint is None or row is None:
        return None
    moment = now(session)
    row.attempts = [*row.attempts, _told(taken, answer, seconds)][-KEPT_ATTEMPTS:]
    row.lease_until = None
    if answer.ok:
        endpoint.failing_since = None
        row.status, row.ended_at = "delivered", moment
    else:
        _failed(endpoint, row, answer, moment, draw)
    session.flush()
    return row.status


def _failed(
    endpoint: Endpoint, row: Delivery, answer: Answer, moment: datetime, draw: float
) -> None:
    """Plan the next try, or end the delivery; and disable an endpoint that has had its chances."""
    row.failures += 1
    endpoint.failing_since = endpoint.failing_since or moment
    wait = None
    if answer.status in (429, 503):
        wait = schedule.retry_after(answer.retry_after, moment)
    pause = schedule.delay(row.event_type, row.failures, wait, draw)
    if pause is None or answer.status == GONE:
        row.status, row.ended_at = "failed", moment
    else:
        row.next_attempt_at = moment + timedelta(seconds=pause)
    if answer.status == GONE:
        endpoint.enabled, endpoint.disabled_reason = False, "gone"
    elif moment - endpoint.failing_since >= schedule.DISABLE_AFTER and endpoint.enabled:
        endpoint.enabled, endpoint.disabled_reason = False, "failing"


def _told(taken: Claim, answer: Answer, seconds: float) -> Json:
    return AttemptOut(
        at=taken.at,
        duration_ms=round(1000 * seconds, 1),
        status_code=answer.status,
        error=answer.error,
        answer=answer.text,
    ).model_dump(mode="json")


def hand_back(session: Session, claims: Sequence[Claim]) -> None:
    """Give up on attempts whose sender must go: another may send them at once."""
    for taken in claims:
        session.execute(
            update(Delivery)
            .where(Delivery.id == taken.id, Delivery.attempt == taken.attempt)
            .values(lease_until=None)
            .execution_options(synchronize_session=False)
        )


def forget(session: Session, seconds: float) -> int:
    """Remove deliveries that were made so long ago; gives how many.

    What is still tried stays, however old; what waits for a disabled endpoint doesn't.
    """
    before = now(session) - timedelta(seconds=seconds)
    disabled = select(Endpoint.id).where(Endpoint.enabled.is_(False))
    settled = or_(Delivery.status != "pending", Delivery.endpoint_id.in_(disabled))
    found = session.execute(
        delete(Delivery)
        .where(Delivery.created_at < before, settled)
        .execution_options(synchronize_session=False)
    )
    count: int = found.rowcount  # type: ignore[attr-defined]  # not in the stubs
    return count
