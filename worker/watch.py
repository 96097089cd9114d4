"""Watches a job's process until it ends, or has to be ended, and says how that was."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from tdmr.errors import Failure
from tdmr.jobdir import JobDir, ProgressLine
from worker.heart import Heart
from worker.launch import Child

LOOK_SECONDS = 0.1
LINGER_SECONDS = 30.0  # a process that has said its last word and doesn't end is ended


class End(Enum):
    """How a process came to its end."""

    DONE = auto()
    FAILED = auto()
    CANCELLED = auto()
    LOST = auto()  # another attempt may hold the job: nothing may be written
    STOPPED = auto()  # this worker has to go


@dataclass(frozen=True)
class Outcome:
    """The end of a process; nothing of it runs any more."""

    end: End
    result: dict[str, Any] | None = None
    failure: Failure | None = None


def watch(child: Child, job: JobDir, heart: Heart, stopping: Callable[[], bool]) -> Outcome:
    """Relay what the process says to `heart`; return once the whole group is gone."""
    offset, last, said_at = 0, ProgressLine(event="progress"), 0.0
    while True:
        status = child.ended()  # asked first, so that what it said before its end is read below
        for behind, line in job.read(offset):
            offset, last, said_at = behind, line, time.monotonic()
            heart.say(line)
        lingers = last.event in ("done", "failed") and time.monotonic() - said_at > LINGER_SECONDS
        if status is not None or lingers:
            child.kill()
            return _ended(last, status, job)
        if heart.lost or heart.expiring:
            child.kill()
            return Outcome(End.LOST)
        if heart.cancel_requested:
            child.terminate()
            return Outcome(End.CANCELLED)
        if stopping():
            child.terminate()
            return Outcome(End.STOPPED)
        time.sleep(LOOK_SECONDS)


def _ended(last: ProgressLine, status: int | None, job: JobDir) -> Outcome:
    if last.event == "done":
        return Outcome(End.DONE, result=last.result or {})
    failure = last.failure or _death(status, last)
    return Outcome(End.FAILED, failure=failure.model_copy(update={"log": job.log_tail()}))


def _death(status: int | None, last: ProgressLine) -> Failure:
    """The failure of a process that ended without a word about it."""
    suggestion = "Submit it again; the log's last lines may say more."
    if status is None or status >= 0:
        how = f"ended with exit status {status}"
    else:
        how = f"was killed by {_signal_name(-status)}"
        if -status == signal.SIGKILL:
            suggestion = "It may have run out of memory: try a smaller batch size or image size."
    return Failure(
        code="process_died",
        user_error=False,
        stage=last.stage.name if last.stage else None,
        detail=f"The job's process {how}, without saying why.",
        retryable=True,
        suggestion=suggestion,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
