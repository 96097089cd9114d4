"""Webhook endpoints, what is sent to them, and how that went."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tdmr.wire.base import Moment, Out

EventType = Literal[
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "job.paused",
    "student.created",
    "dataset.ready",
    "dataset.invalid",
]
PING = "ping"
DeliveryStatus = Literal["pending", "delivered", "failed"]
AttemptError = Literal[
    "refused", "unresolvable", "connection", "tls", "timeout", "http", "internal"
]


class WebhookMessage(Out):
    """The body of a webhook (standardwebhooks.com): ids only; ask the API for the rest."""

    type: str = Field(description="An event's type, or `ping`.")
    timestamp: Moment = Field(description="When it happened; retries don't change it.")
    data: dict[str, str]


class WebhookEndpointOut(Out):
    """An address that is told of events."""

    id: str
    url: str
    description: str
    events: list[EventType] | None = Field(description="Null: all, those to come included.")
    enabled: bool
    disabled_reason: Literal["gone", "failing"] | None = Field(
        description="Why the service has disabled it; null where you did."
    )
    failing_since: Moment | None = Field(description="The first failure since the last success.")
    created_at: Moment


class WebhookSecretOut(WebhookEndpointOut):
    """An endpoint with its new secret, which can't be had again."""

    secret: str = Field(description="`whsec_` and base64: what signatures are made with.")


class AttemptOut(Out):
    """One try to deliver a message."""

    at: Moment
    duration_ms: float
    status_code: int | None = Field(description="Of the answer; null where none came.")
    error: AttemptError | None = Field(description="What went wrong; `http`: the status does.")
    answer: str | None = Field(description="The first bytes of the answer.")


class DeliveryOut(Out):
    """A message to an endpoint."""

    id: str = Field(description="The header `webhook-id` of every attempt.")
    event_type: str
    status: DeliveryStatus
    next_attempt_at: Moment | None = Field(description="Null once it has ended.")
    attempts: list[AttemptOut] = Field(description="The newest 30, in order.")
    created_at: Moment
    ended_at: Moment | None
