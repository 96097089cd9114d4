"""The heartbeat of one claim: prolongs its lease, relays progress, hears what it is to do."""

from __future__ import annotations

import threading
import time
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import metrics
from app.db import Database
from app.jobs import ledger
from app.jobs.claims import Claim, LeaseLostError, Orders
from app.settings import Settings
from tdmr.jobdir import ProgressLine

PROGRESS_SECONDS = 1.0  # a job writes at most one row of progress in this time
LISTEN_SECONDS = 2.0  # how soon a silent job hears of a cancel
LAST_MOMENT = 0.75  # of the lease: without a heartbeat for so long, a job gives itself up

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Words:
    """What a job has said since the last beat: its latest progress, and every warning."""

    progress: ProgressLine | None = None
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.progress is not None or bool(self.warnings)

    def then(self, line: ProgressLine) -> Words:
        """These, and one line more."""
        if line.event == "warning" and line.message is not None:
            return replace(self, warnings=(*self.warnings, line.message))
        return replace(self, progress=line) if line.event == "progress" else self

    def before(self, later: Words) -> Words:
        """These, and what was said after them."""
        return Words(later.progress or self.progress, self.warnings + later.warnings)

    def pass_on(self, session: Session, claim: Claim, lease_seconds: float) -> Orders:
        """One beat in the caller's transaction, and its answer."""
        line = self.progress
        return ledger.beat(
            session,
            claim,
            lease_seconds=lease_seconds,
            progress=None if line is None else line.model_dump(mode="json", exclude_none=True),
            warnings=self.warnings,
        )


class Heart:
    """Beats in a thread of its own, so that a slow database never stops the watch on the child.

    `lost` and `orders` are what the ledger answered last.
    """

    def __init__(
        self, database: Database, claim: Claim, settings: Settings, claimed_at: float
    ) -> None:
        self.lost = False
        self.orders = Orders()
        self._database = database
        self._claim = claim
        self._lease = settings.lease_seconds
        self._interval = settings.heartbeat_seconds
        self._heard = claimed_at
        self._renewed = claimed_at  # by time.monotonic(): when the last good beat was begun
        self._words = Words()
        self._guard = threading.Lock()
        self._stop = threading.Event()
        # With the caller's context: its lines are about the same job.
        run = partial(copy_context().run, self._run)
        self._thread = threading.Thread(target=run, name="heart", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=self._lease)  # a hung database mustn't hold the worker for ever

    @property
    def expiring(self) -> bool:
        """Whether the lease is so near its end that the job must be given up now."""
        return time.monotonic() - self._renewed > LAST_MOMENT * self._lease

    def say(self, line: ProgressLine) -> None:
        """Pass a line on with one of the next beats; of progress, only the latest counts."""
        with self._guard:
            self._words = self._words.then(line)

    def last_words(self) -> Words:
        """What was said and not yet passed on: the caller passes it on from here."""
        with self._guard:
            words, self._words = self._words, Words()
        return words

    def _run(self) -> None:
        tick = min(PROGRESS_SECONDS, self._interval)
        while not self._stop.wait(tick) and not self.lost:
            moment = time.monotonic()
            if self._words or moment - self._renewed >= self._interval:
                self._beat()
            elif moment - self._heard >= LISTEN_SECONDS:
                self._listen()

    def _beat(self) -> None:
        begun = time.monotonic()
        words = self.last_words()
        try:
            with self._database.write() as session:
                self.orders = words.pass_on(session, self._claim, self._lease)
        except LeaseLostError:
            self.lost = True
            metrics.BEATS.labels("lost").inc()
        except SQLAlchemyError as error:
            log.warning("heartbeat_failed", error=str(error))
            metrics.BEATS.labels("failed").inc()
            with self._guard:
                self._words = words.before(self._words)
        else:
            metrics.BEATS.labels("kept").inc()
            self._renewed = self._heard = begun

    def _listen(self) -> None:
        """Ask without writing: cheaper than a beat, so that it can come more often."""
        self._heard = time.monotonic()
        try:
            with self._database.read() as session:
                self.orders = ledger.orders(session, self._claim)
        except LeaseLostError:
            self.lost = True
        except SQLAlchemyError as error:
            log.warning("heartbeat_failed", error=str(error))
