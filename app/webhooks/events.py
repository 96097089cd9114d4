"""Events become deliveries in the very transaction that changes what they tell of.

So none is told that didn't happen, and none that happened is lost with a process.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import new_id, now
from app.models import Dataset, Job
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint
from tdmr.wire.webhooks import EventType, WebhookMessage

JOBS: dict[str, EventType] = {
    "succeeded": "job.succeeded",
    "failed": "job.failed",
    "cancelled": "job.cancelled",
    "paused": "job.paused",
}
DATASETS: dict[str, EventType] = {"ready": "dataset.ready", "invalid": "dataset.invalid"}


def job_moved(session: Session, job: Job) -> None:
    """Tell of a distillation's new state, where it is one that is told of."""
    if job.kind == "distil" and job.state in JOBS:
        assert job.dataset_id is not None
        tell(session, job.owner, JOBS[job.state], job_id=job.id, dataset_id=job.dataset_id)


def dataset_settled(session: Session, dataset: Dataset) -> None:
    """Tell what the check of a dataset has come to."""
    tell(session, dataset.owner, DATASETS[dataset.status], dataset_id=dataset.id)


def tell(session: Session, owner: str, type_: EventType, **data: str) -> None:
    """Owe a delivery to each enabled endpoint of `owner` that wants events of this type.

    The endpoints are held against deletion until the caller's transaction ends: an order to
    forget one never breaks what is told to it.
    """
    found = session.scalars(
        select(WebhookEndpoint)
        .where(WebhookEndpoint.owner == owner, WebhookEndpoint.enabled)
        .order_by(WebhookEndpoint.id)
        .with_for_update(read=True, key_share=True)
    ).all()
    if found:
        moment = now(session)
        for endpoint in found:
            if endpoint.events is None or type_ in endpoint.events:
                session.add(delivery(endpoint, type_, data, moment))
        session.flush()


def delivery(
    endpoint: WebhookEndpoint, type_: str, data: dict[str, str], moment: datetime
) -> WebhookDelivery:
    """What is to be told to one endpoint, at once."""
    message = WebhookMessage(type=type_, timestamp=moment, data=data)
    return WebhookDelivery(
        id=new_id("msg"),
        endpoint_id=endpoint.id,
        event_type=type_,
        body=message.model_dump_json(),
        status="pending",
        attempt=0,
        failures=0,
        next_attempt_at=moment,
        attempts=[],
        created_at=moment,
    )
