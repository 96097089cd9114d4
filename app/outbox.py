"""Doorbells that are owed: written with the change they speak of, rung after its commit.

A bell carries one job id and nothing else; the ledger says what that job is. A bell may ring
twice, or for a job that is gone: whoever hears it asks the ledger.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import lru_cache

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db import Database, new_id, now, utcnow
from app.models import Job, Outbox
from app.settings import Settings
from tdmr import failpoint

TASK = "tdmr.ring"
BATCH = 100
TIMEOUT_SECONDS = 1.0

log = structlog.get_logger(__name__)


def ring(session: Session, job: Job) -> None:
    """Owe a bell for `job`, in the caller's transaction."""
    topic = bell(job.queue, job.kind, job.devices)
    session.add(Outbox(id=new_id("out"), topic=topic, subject_id=job.id, created_at=now(session)))


def bell(queue: str, kind: str, devices: int = 1) -> str:
    """The broker's queue for jobs of one queue, kind and size: whoever hears it can take them."""
    return f"tdmr.{queue}.{kind}" if devices == 1 else f"tdmr.{queue}.{kind}.{devices}"


def relay(database: Database, settings: Settings) -> int:
    """Ring what is owed and due, oldest first, and give how many bells were taken by the broker.

    A row is deleted only after the broker has its bell, so none is lost while the broker is
    down; the first refusal ends the round. A job that waits out a back-off is rung when it's due,
    one that waits for another of its sweep when it no longer does.
    """
    if settings.broker_url is None:
        return 0
    with database.read() as session:
        owed = _owed(session)
    sent = []
    for row_id, job_id, topic in owed:
        if not _send(settings.broker_url, job_id, topic):
            break
        sent.append(row_id)
        failpoint.reached("bell.sent")
    if sent:
        with database.write() as session:
            session.execute(delete(Outbox).where(Outbox.id.in_(sent)))
    return len(sent)


def _owed(session: Session) -> Iterable[tuple[str, str, str]]:
    """The rows whose bell can be rung now."""
    rows = session.execute(
        select(Outbox.id, Outbox.subject_id, Outbox.topic)
        .outerjoin(Job, Job.id == Outbox.subject_id)
        .where(due())
        .order_by(Outbox.created_at, Outbox.id)
        .limit(BATCH)
    )
    return [(row.id, row.subject_id, row.topic) for row in rows]


def due() -> ColumnElement[bool]:
    """Whether a row's bell can be rung now; `Job` is outer-joined, and gone where it's null."""
    claimable = and_(Job.run_after <= utcnow(), Job.waits_for.is_(None))
    return or_(Job.id.is_(None), Job.state != "queued", claimable)


def _send(broker_url: str, job_id: str, topic: str) -> bool:
    """Ring once; False when the broker can't be reached."""
    try:
        _producer(broker_url).send_task(
            TASK, args=[job_id], queue=topic, ignore_result=True, retry=False
        )
    except (OperationalError, OSError) as error:
        log.warning("broker_unreachable", error=str(error))
        return False
    return True


@lru_cache(maxsize=4)
def _producer(broker_url: str) -> Celery:
    """Celery's client side: it knows the task's name, not its code."""
    client = Celery("tdmr", broker=broker_url, set_as_current=False)
    client.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        broker_connection_timeout=TIMEOUT_SECONDS,
        broker_transport_options={
            "socket_connect_timeout": TIMEOUT_SECONDS,
            "socket_timeout": TIMEOUT_SECONDS,
            "max_retries": 0,  # the next round is the retry
        },
    )
    return client


class Relay:
    """A thread that relays every `interval` seconds, and at once when nudged.

    Without a broker there is nothing to relay and no thread.
    """

    def __init__(self, database: Database, settings: Settings, interval: float = 1.0) -> None:
        self._database = database
        self._settings = settings
        self._interval = interval
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to relay."""
        if self._settings.broker_url is not None:
            self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
            self._thread.start()

    def nudge(self) -> None:
        """Relay now: something was just committed. Never blocks."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread, after the round it may be in."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stopping:
            try:
                relay(self._database, self._settings)
            except SQLAlchemyError as error:
                log.warning("database_unreachable", error=str(error))
            self._wake.wait(self._interval)
            self._wake.clear()
