"""What an owner and a sender do to webhooks, each a transaction of its own."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update

from app.db import Database, now
from app.webhooks import deliveries, service
from app.webhooks.deliveries import Claim
from app.webhooks.network import Answer
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint

OK = Answer(status=204, text="")
BROKEN = Answer(status=500, text="oh", error="http")
EVEN = 0.5  # a draw that leaves delays as the schedule has them


def endpoint(
    database: Database, url: str = "https://hooks.example.com/", owner: str = "ana", **given: Any
) -> WebhookEndpoint:
    """A new endpoint."""
    with database.write() as session:
        return service.create(
            session,
            owner=owner,
            url=url,
            description="",
            event_types=given.get("event_types"),
            idempotency_key=None,
            request_sha256="",
            most=100,
        )


def owe(database: Database, to: WebhookEndpoint, event_type: str | None = "job.failed") -> str:
    """A message to an endpoint, due now; its id."""
    time.sleep(0.002)  # SQLite's clock counts milliseconds: so each is younger than the last
    with database.write() as session:
        row = service.ping(session, to.owner, to.id)
        row.event_type = event_type or row.event_type
        return row.id


def claim(database: Database, limit: int = 10) -> list[Claim]:
    """Take what is due."""
    with database.write() as session:
        return deliveries.claim(session, limit)


def record(database: Database, taken: Claim, answer: Answer, draw: float = EVEN) -> str | None:
    """Write down how an attempt went."""
    with database.write() as session:
        return deliveries.record(session, taken, answer, seconds=0.25, draw=draw)


def attempt(database: Database, answer: Answer, draw: float = EVEN) -> str | None:
    """Take the one delivery that is due, and have it answered so."""
    (taken,) = claim(database)
    return record(database, taken, answer, draw)


def delivery(database: Database, delivery_id: str) -> WebhookDelivery:
    """A delivery as it is now."""
    with database.read() as session:
        return session.get_one(WebhookDelivery, delivery_id)


def every(database: Database) -> list[WebhookDelivery]:
    """All deliveries, the oldest first."""
    with database.read() as session:
        return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)))


def seen(database: Database, endpoint_id: str) -> WebhookEndpoint:
    """An endpoint as it is now."""
    with database.read() as session:
        return session.get_one(WebhookEndpoint, endpoint_id)


def moment(database: Database) -> datetime:
    """The moment, by the database's clock."""
    with database.read() as session:
        return now(session)


def pass_time(database: Database, **ago: float) -> None:
    """Let every moment that something is measured from be so much longer ago."""
    span = timedelta(**ago)
    with database.write() as session:
        for row in session.scalars(select(WebhookDelivery)):
            row.next_attempt_at -= span
            row.created_at -= span
            row.lease_until = row.lease_until and row.lease_until - span
        for each in session.scalars(select(WebhookEndpoint)):
            each.failing_since = each.failing_since and each.failing_since - span


def write(database: Database, endpoint_id: str, **values: Any) -> None:
    """Set columns of an endpoint."""
    with database.write() as session:
        session.execute(
            update(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id).values(values)
        )
