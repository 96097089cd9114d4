"""The sender: a thread that sends what is due, many attempts at once, and none for long."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import Future, wait

import anyio.to_thread
import structlog
from anyio.from_thread import BlockingPortal, start_blocking_portal
from sqlalchemy.exc import SQLAlchemyError

from app import metrics
from app.db import Database
from app.settings import Settings
from app.webhooks import deliveries, signing
from app.webhooks.deliveries import Claim
from app.webhooks.network import Answer, Network, network_of

SLOTS = 64  # attempts at once
GRACE_SECONDS = 5.0  # for attempts in flight when the server stops
FORGET_SECONDS = 3600.0  # between two searches for old deliveries
USER_AGENT = "TDMR-Webhooks/1"

log = structlog.get_logger(__name__)


class Sender:
    """Looks for what is due every `interval` seconds, and at once when nudged.

    Many servers may send beside each other: each delivery is taken by one of them.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        network: Network | None = None,
        interval: float = 1.0,
    ) -> None:
        self.network = network or network_of(settings)
        self._database = database
        self._settings = settings
        self._interval = interval
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._running: dict[Future[None], Claim] = {}
        self._forget_at = 0.0

    def start(self) -> None:
        """Begin to send."""
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """Send now: something was just committed. Never blocks."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread; attempts in flight get a moment, then others may make them."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        with start_blocking_portal(name="webhooks-io") as portal:
            while not self._stopping:
                try:
                    self._round(portal)
                except SQLAlchemyError as error:
                    log.warning("database_unreachable", error=str(error))
                self._wake.wait(self._interval)
                self._wake.clear()
            self._wind_up()

    def _round(self, portal: BlockingPortal) -> None:
        """Begin as many attempts as there is room for."""
        self._running = {
            future: taken for future, taken in self._running.items() if not future.done()
        }
        for taken in self._claim(SLOTS - len(self._running)):
            future = portal.start_task_soon(self._attempt, taken)
            self._running[future] = taken
            future.add_done_callback(self._landed)
        if time.monotonic() >= self._forget_at:
            with self._database.write() as session:
                deliveries.forget(session, self._settings.webhook_retention_seconds)
            self._forget_at = time.monotonic() + FORGET_SECONDS

    def _claim(self, room: int) -> list[Claim]:
        """Deliveries for this sender; the write lock is taken only when there are any."""
        if room <= 0:
            return []
        with self._database.read() as session:
            if not deliveries.due(session, 1):
                return []
        with self._database.write() as session:
            return deliveries.claim(session, room)

    def _landed(self, future: Future[None]) -> None:
        """An attempt is over, and its place free."""
        self._wake.set()
        if not future.cancelled() and (error := future.exception()) is not None:
            log.error("webhook_broke", error=repr(error))  # its lease runs out

    async def _attempt(self, taken: Claim) -> None:
        """Send one message, and write down how that went."""
        began = time.monotonic()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            **signing.headers(taken.id, taken.at, taken.body, taken.secrets),
        }
        try:
            answer = await self.network.post(taken.url, headers, taken.body.encode())
        except Exception as error:  # a bug here must count as a failure, or it's sent for ever
            log.error("webhook_broke", id=taken.id, error=type(error).__name__)
            answer = Answer(error="internal")
        seconds = time.monotonic() - began
        await anyio.to_thread.run_sync(self._record, taken, answer, seconds)

    def _record(self, taken: Claim, answer: Answer, seconds: float) -> None:
        try:
            with self._database.write() as session:
                draw = random.random()
                status = deliveries.record(session, taken, answer, seconds=seconds, draw=draw)
        except SQLAlchemyError as error:  # the lease runs out, and it's sent again
            log.warning("webhook_result_lost", id=taken.id, error=type(error).__name__)
            return
        metrics.WEBHOOKS.labels(status or "gone").inc()
        log.info(
            "webhook",
            id=taken.id,
            status=status,
            status_code=answer.status,
            error=answer.error,
        )

    def _wind_up(self) -> None:
        late = wait(self._running, GRACE_SECONDS).not_done
        for future in late:
            future.cancel()
        try:
            with self._database.write() as session:
                deliveries.hand_back(session, [self._running[future] for future in late])
        except SQLAlchemyError as error:  # the leases run out
            log.warning("database_unreachable", error=str(error))
