"""Checkpoints on their way into storage, beside the watch on the process that writes them.

A store or a database that doesn't answer must not keep a worker from hearing a cancel, or from
ending a process whose lease runs out.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from app.jobs.claims import LeaseLostError
from tdmr.jobdir import JobDir, ProgressLine
from worker.heart import Heart

LOOK_SECONDS = 0.1

Keep = Callable[[JobDir, ProgressLine], None]


class Beside:
    """Keeps one checkpoint after another, in a thread of its own."""

    def __init__(self, keep: Keep, job: JobDir, heart: Heart) -> None:
        self._keep, self._job, self._heart = keep, job, heart
        self._lines: SimpleQueue[ProgressLine | None] = SimpleQueue()
        self._added = self._done = 0
        self._error: Exception | None = None
        context = contextvars.copy_context()  # the job's fields in the log
        # A daemon: where nothing answers, the end of the worker doesn't wait for it.
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="keeper", daemon=True
        )

    def add(self, line: ProgressLine) -> None:
        """Keep the checkpoint that `line` speaks of, behind those before it."""
        if not self._added:
            self._thread.start()
        self._added += 1
        self._lines.put(line)

    def check(self) -> None:
        """Raises what went wrong that has nothing to do with the lease."""
        if self._error is not None:
            raise self._error

    def settle(self) -> bool:
        """Wait until all are kept; False when the lease is over before that."""
        while self._done < self._added:
            if self._heart.lost or self._heart.expiring:
                return False
            time.sleep(LOOK_SECONDS)
        self.check()
        return not self._heart.lost

    def close(self) -> None:
        """No more will come."""
        self._lines.put(None)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._keep(self._job, line)
            except LeaseLostError:
                self._heart.lost = True
            except Exception as error:  # raised again by `check`
                self._error = error
            self._done += 1
