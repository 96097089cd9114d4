"""How the ledger stands, asked of the database at each scrape: any server tells the same truth.

Two statements; each walks an index over what is open, however many jobs have ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import case, func, literal, null, select, type_coerce, union_all
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import metrics, outbox
from app.db import Database, UtcDateTime, now
from app.jobs.states import ENDED, HELD, State
from app.models import Job, Outbox, Worker
from app.settings import Settings
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint

LATE_BEATS = 3  # a heartbeat that is so many intervals old is late
JOB = ["queue", "kind", "state"]

log = structlog.get_logger(__name__)


class Gauges(Collector):
    """Finds what there is; without a database, that there is none."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: to be registered asks no database."""
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """All of them, as of now."""
        yield from metrics.disk(self._settings.data_dir, "data")
        found: list[GaugeMetricFamily] = []
        try:
            with self._database.read() as session:
                found = [*_jobs(session, self._settings), *_owed(session, self._settings)]
        except SQLAlchemyError as error:
            log.warning("database_unreachable", during="metrics", error=str(error))
        up = GaugeMetricFamily("tdmr_database_up", "Whether the database answered this scrape.")
        up.add_metric([], 1 if found else 0)
        yield up
        yield from found


def _jobs(session: Session, settings: Settings) -> list[GaugeMetricFamily]:
    moment = now(session)
    late = moment - timedelta(seconds=LATE_BEATS * settings.heartbeat_seconds)
    # Since when a job has been in its state, as well as the row knows.
    since = case(
        (Job.state == State.QUEUED, Job.run_after),
        (Job.state.in_(HELD), Job.claimed_at),
        else_=func.coalesce(Job.claimed_at, Job.created_at),
    )
    held = Job.state.in_(HELD)
    rows = session.execute(
        select(
            *(Job.queue, Job.kind, Job.state),
            func.count().label("number"),
            type_coerce(func.min(since), UtcDateTime).label("oldest"),
            func.sum(case((held & (Job.heartbeat_at < late), 1), else_=0)).label("late"),
            func.sum(case((held & (Job.lease_until < moment), 1), else_=0)).label("expired"),
        )
        .where(Job.state.in_([state for state in State if state not in ENDED]))
        .group_by(Job.queue, Job.kind, Job.state)
    ).all()
    jobs = GaugeMetricFamily("tdmr_jobs", "Jobs that haven't ended.", labels=JOB)
    oldest = GaugeMetricFamily(
        "tdmr_jobs_oldest_seconds",
        "Age of the oldest of them: since it was due (queued), or claimed, or else ordered.",
        labels=JOB,
    )
    for row in rows:
        where = [row.queue, row.kind, row.state]
        jobs.add_metric(where, row.number)
        oldest.add_metric(where, _age(row.oldest, moment))
    return [
        jobs,
        oldest,
        _one(
            "tdmr_jobs_heartbeat_late",
            f"Held jobs whose last heartbeat is older than {LATE_BEATS} intervals.",
            sum(row.late for row in rows),
        ),
        _one(
            "tdmr_jobs_lease_expired",
            "Held jobs whose lease has run out, and that no worker has swept yet.",
            sum(row.expired for row in rows),
        ),
    ]


def _owed(session: Session, settings: Settings) -> list[GaugeMetricFamily]:
    """What waits to be sent, and the workers that there are."""
    moment = now(session)
    delivery, patience = WebhookDelivery, timedelta(seconds=settings.worker_patience)

    def part(name: str, label: Any, oldest: Any) -> Any:
        columns = (literal(name).label("what"), label.label("label"), func.count().label("number"))
        return select(*columns, type_coerce(oldest, UtcDateTime).label("oldest"))

    rows = session.execute(
        union_all(
            part("outbox", literal(""), func.min(Outbox.created_at))
            .select_from(Outbox)
            .outerjoin(Job, Job.id == Outbox.subject_id)
            .where(outbox.due()),
            part("webhooks", literal(""), func.min(delivery.next_attempt_at))
            .select_from(delivery)
            .join(WebhookEndpoint, WebhookEndpoint.id == delivery.endpoint_id)
            .where(WebhookEndpoint.enabled, delivery.status == "pending"),
            part("workers", Worker.device, null())
            .where(Worker.seen_at >= moment - patience)
            .group_by(Worker.device),
        )
    ).all()
    found = {row.what: row for row in rows if row.what != "workers"}
    workers = GaugeMetricFamily(
        "tdmr_workers", "Workers that were heard of within a lease.", labels=["device"]
    )
    for row in rows:
        if row.what == "workers":
            workers.add_metric([row.label], row.number)
    bells, webhooks = found["outbox"], found["webhooks"]
    return [
        workers,
        _one("tdmr_outbox_rows", "Bells that could be rung, and aren't yet.", bells.number),
        _one("tdmr_outbox_oldest_seconds", "Age of the oldest.", _age(bells.oldest, moment)),
        _one("tdmr_webhook_deliveries", "Webhook deliveries that wait.", webhooks.number),
        _one(
            "tdmr_webhook_deliveries_overdue_seconds",
            "For how long the most overdue of them could have been tried.",
            _age(webhooks.oldest, moment),
        ),
    ]


def _age(since: datetime | None, moment: datetime) -> float:
    return 0.0 if since is None else max(0.0, (moment - since).total_seconds())


def _one(name: str, said: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, said)
    family.add_metric([], value)
    return family
