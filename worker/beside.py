"""Checkpoints on their way into storage, beside the watch on the process that writes them.

A store or a database that doesn't answer must not keep a worker from hearing a cancel, or from
ending a process whose lease runs out.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable

from app.jobs.claims import LeaseLostError
from tdmr.jobdir import JobDir, ProgressLine
from worker.heart import Heart

LOOK_SECONDS = 0.1

Keep = Callable[[JobDir, ProgressLine], None]


class Beside:
    """Keeps one checkpoint after another, in a thread of its own; of a stage the newest alone."""

    def __init__(self, keep: Keep, job: JobDir, heart: Heart) -> None:
        self._keep, self._job, self._heart = keep, job, heart
        self._waiting: dict[str, ProgressLine] = {}  # by the stage's name
        self._busy = self._closed = self._begun = False
        self._change = threading.Condition()
        self._error: Exception | None = None
        context = contextvars.copy_context()  # the job's fields in the log
        # A daemon: where nothing answers, the end of the worker doesn't wait for it.
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="keeper", daemon=True
        )

    def add(self, line: ProgressLine) -> None:
        """Keep the checkpoint that `line` speaks of, in place of one that waits."""
        assert line.stage is not None
        if not self._begun:
            self._begun = True
            self._thread.start()
        with self._change:
            self._waiting[line.stage.name] = line
            self._change.notify()

    def check(self) -> None:
        """Raises what went wrong that has nothing to do with the lease."""
        if self._error is not None:
            raise self._error

    def settle(self) -> bool:
        """Wait until all are kept; False when the lease is over before that."""
        while self._waiting or self._busy:
            if self._heart.lost or self._heart.expiring:
                return False
            time.sleep(LOOK_SECONDS)
        self.check()
        return not self._heart.lost

    def close(self) -> None:
        """No more will come."""
        with self._change:
            self._closed = True
            self._change.notify()

    def _next(self) -> ProgressLine | None:
        with self._change:
            self._busy = False
            self._change.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            self._busy = True  # before it waits no more: `settle` looks at both
            return self._waiting.pop(next(iter(self._waiting)))

    def _run(self) -> None:
        while (line := self._next()) is not None:
            try:
                self._keep(self._job, line)
            except LeaseLostError:
                self._heart.lost = True
            except Exception as error:  # raised again by `check`
                self._error = error
