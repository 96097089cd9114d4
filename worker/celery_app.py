"""The Celery side of a worker: a consumer that hears bells, and trusts them with nothing.

A bell carries one id: the ledger decides whether there is something to do, and whose turn it is.
The pool is `solo`: a job is a process of its own already, so a pool process between it and the
worker would be one more thing to die, to outlive its parent, and to hold memory. While a job runs
no bell is taken from the broker, so it rings at a worker that is free.
"""

from __future__ import annotations

import os
import signal
import threading

from celery import Celery, signals
from kombu.entity import Exchange, Queue

from app import outbox
from app.jobs.queue import LONG
from app.outbox import TASK
from worker.station import Station

OPTIONS = (
    *("--pool=solo", "--concurrency=1", "--loglevel=INFO"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)
SLOW = 5  # the ledger is asked every so many `poll_seconds` too, in case that a bell got lost


def consume(station: Station) -> None:
    """Hear bells until SIGTERM or SIGINT, and poll slowly beside: losing Redis costs a delay."""

    def stop(**_: object) -> None:
        station.stopping = True

    def end_if_told(**_: object) -> None:
        """What was said before Celery listened to signals is said to it again."""
        if station.stopping:
            os.kill(os.getpid(), signal.SIGTERM)

    # It's sent by handlers of signals: a second SIGTERM must not wait for what the first one holds.
    signals.worker_shutting_down.lock = threading.RLock()
    signals.worker_shutting_down.connect(stop, weak=False)
    signals.worker_ready.connect(end_if_told, weak=False)
    station.beside("poll", SLOW * station.settings.poll_seconds, station.drain)
    station.open()
    try:
        name = f"--hostname=tdmr-{os.getpid()}@%h"
        make_app(station).worker_main(["worker", name, *OPTIONS])
    finally:
        station.close()


def make_app(station: Station) -> Celery:
    """An application whose one task asks the ledger for the next job."""
    celery = Celery("tdmr", broker=station.settings.broker_url, set_as_current=False)
    celery.conf.update(
        # Nothing is acknowledged: a bell that is lost costs one slow poll, and an acknowledgement
        # that fails while Redis restarts leaves Celery's consumer deaf without a word.
        task_queues=[_heard(name) for name in _bells(station)],
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        # It concerns late acknowledgements only; unset, each lost connection brings a warning.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"socket_keepalive": True, "socket_connect_timeout": 5.0},
    )

    @celery.task(name=TASK)  # type: ignore[untyped-decorator] # Celery ships no types
    def ring(job_id: str) -> None:
        """Run the job that the ledger says is next: of those rung for, not always `job_id`."""
        station.run_next()

    return celery


def _bells(station: Station) -> list[str]:
    """What rings for a job that the station can take."""
    return [
        outbox.bell(queue, kind, devices)
        for queue in station.queues
        for kind in station.kinds
        for devices in range(1, 1 + (station.devices if kind == LONG else 1))
    ]


def _heard(name: str) -> Queue:
    """A broker's queue that is heard without acknowledging.

    A bell that is lost costs one slow poll. An acknowledgement that fails while Redis restarts
    leaves Celery's consumer deaf, without a word.
    """
    exchange = Exchange(name)  # type: ignore[no-untyped-call] # kombu ships no types
    return Queue(name, exchange, routing_key=name, no_ack=True)  # type: ignore[no-untyped-call] # nor here
