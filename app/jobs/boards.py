"""Who stands where in each queue, as it was a moment ago: one look serves all who ask."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from app.db import Database
from app.jobs import queue
from app.jobs.queue import Place, Standing
from app.jobs.states import State
from app.models import Job

SECONDS = 0.5  # after which those who ask have the next look taken, and don't wait for it
OLDEST_SECONDS = 5.0  # that a place may be old
Board = tuple[str, str]  # a queue, and a kind of job


class Boards:
    """The places of all who wait. Safe to share by threads.

    Ask without a session open: a look takes a connection of its own.
    """

    def __init__(self, database: Database, patience: float) -> None:
        self._database, self._patience = database, patience
        self._found: dict[Board, tuple[float, Standing]] = {}
        self._looking: dict[Board, Future[Standing]] = {}
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="boards")

    def place(self, job: Job) -> Place | None:
        """Where a job stands; None for one that isn't queued."""
        if job.state != State.QUEUED:
            return None
        board = (job.queue, job.kind)
        with self._lock:
            at, standing = self._found.get(board, (0.0, None))
            age = time.monotonic() - at
            if standing is None or age > OLDEST_SECONDS or standing.misses(job, age):
                standing = self._look(board)
            elif age > SECONDS and (board not in self._looking or self._looking[board].done()):
                self._looking[board] = self._thread.submit(self._look, board)
        return standing.place(job)

    def close(self) -> None:
        """Wait for the look that may be under way."""
        self._thread.shutdown()

    def _look(self, board: Board) -> Standing:
        at = time.monotonic()
        with self._database.read() as session:
            standing = queue.standing(session, *board, self._patience)
        self._found[board] = (at, standing)
        return standing
