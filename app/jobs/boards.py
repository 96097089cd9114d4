"""Who stands where in each queue, as it was a moment ago: one look serves all who ask."""

from __future__ import annotations

import time
from threading import Lock

from app.db import Database
from app.jobs import queue
from app.jobs.queue import Place, Standing
from app.jobs.states import State
from app.models import Job

SECONDS = 0.5  # that a place may be old


class Boards:
    """The places of all who wait. Safe to share by threads.

    Ask without a session open: a look takes a connection of its own.
    """

    def __init__(self, database: Database, patience: float) -> None:
        self._database, self._patience = database, patience
        self._found: dict[tuple[str, str], tuple[float, Standing]] = {}
        self._lock = Lock()

    def place(self, job: Job) -> Place | None:
        """Where a job stands; None for one that isn't queued."""
        if job.state != State.QUEUED:
            return None
        board = (job.queue, job.kind)
        with self._lock:
            at, standing = self._found.get(board, (0.0, None))
            age = time.monotonic() - at
            if standing is None or age > SECONDS or standing.misses(job, age):
                at = time.monotonic()
                with self._database.read() as session:
                    standing = queue.standing(session, *board, self._patience)
                self._found[board] = (at, standing)
        return standing.place(job)
