"""The tables of webhooks: where to tell, and what is to be told there."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, UtcDateTime
from app.models import Json, NullableJson


class WebhookEndpoint(Base):
    """An address of an owner's. Its secrets are kept as they are: they sign what is sent."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        UniqueConstraint("owner", "idempotency_key"),
        Index("ix_webhook_endpoints_owner_id", "owner", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(100))
    url: Mapped[str] = mapped_column(String(2000))
    description: Mapped[str] = mapped_column(String(500))
    events: Mapped[list[str] | None] = mapped_column(NullableJson)  # None: all
    enabled: Mapped[bool]
    disabled_reason: Mapped[str | None] = mapped_column(String(20))  # `gone` or `failing`
    failing_since: Mapped[datetime | None] = mapped_column(UtcDateTime)  # no success after it
    secrets: Mapped[list[Json]] = mapped_column(JSON)  # app.webhooks.signing.Secret, newest first
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    request_sha256: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WebhookDelivery(Base):
    """One message to one endpoint; its id is the `webhook-id` of every attempt.

    `attempt` is the fencing token: each claim raises it, and the result names it.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
        Index("ix_webhook_deliveries_endpoint_id_id", "endpoint_id", "id"),
        Index("ix_webhook_deliveries_status_next_attempt_at", "status", "next_attempt_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    event_type: Mapped[str] = mapped_column(String(40))
    body: Mapped[str] = mapped_column(Text)  # the very bytes that are signed and sent
    status: Mapped[str] = mapped_column(String(20))
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)  # since it was made, or replayed
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    attempts: Mapped[list[Json]] = mapped_column(JSON)  # tdmr.wire.webhooks.AttemptOut
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
