"""Watches a job's process until it ends, or has to be ended, and says how that was."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from tdmr.errors import Failure
from tdmr.jobdir import JobDir, ProgressLine
from worker.beside import LOOK_SECONDS, Beside, Keep
from worker.echo import Echo
from worker.heart import Heart
from worker.launch import Child

LINGER_SECONDS = 30.0  # a process that has said its last word and doesn't end is ended
LAST_WORDS = ("done", "failed", "stopped")


class End(Enum):
    """How a process came to its end."""

    DONE = auto()
    FAILED = auto()
    CANCELLED = auto()
    PAUSED = auto()
    BUDGET_SPENT = auto()
    STOPPED = auto()  # this worker has to go
    AWAY = auto()  # the store of files can't be reached
    LOST = auto()  # another attempt may hold the job: nothing may be written


@dataclass(frozen=True)
class Outcome:
    """The end of a process; nothing of it runs any more."""

    end: End
    failure: Failure | None = None


def watch(
    child: Child,
    job: JobDir,
    heart: Heart,
    keep: Keep,
    *,
    stopping: Callable[[], bool],
    grace: float,
) -> Outcome:
    """Relay what the process says to `heart`, and its checkpoints to `keep`, until it's gone.

    A process that has to stop gets `grace` seconds to save its state. Returns once the whole
    group is gone.
    """
    beside = Beside(keep, job, heart)
    try:
        return _watch(child, _Ears(job, heart, beside), heart, beside, stopping, grace)
    finally:
        beside.close()


def _watch(
    child: Child,
    ears: _Ears,
    heart: Heart,
    beside: Beside,
    stopping: Callable[[], bool],
    grace: float,
) -> Outcome:
    while True:
        status = child.ended()  # asked first, so that what it said before its end is heard below
        ears.listen()
        if status is not None or ears.lingers:
            child.kill()
            ears.close()
            return _ended(ears, status) if beside.settle() else Outcome(End.LOST)
        if heart.lost or heart.expiring:
            child.kill()
            return Outcome(End.LOST)
        if end := asked_to_stop(heart, stopping):
            child.terminate(grace)
            ears.listen()
            ears.close()
            if not beside.settle():
                return Outcome(End.LOST)
            if ears.last.event in ("done", "failed") and end is not End.CANCELLED:
                return _ended(ears, status)  # it came to its end at the same moment
            return Outcome(end)
        time.sleep(LOOK_SECONDS)


class _Ears:
    """What the process says, from its first line on."""

    def __init__(self, job: JobDir, heart: Heart, beside: Beside) -> None:
        self.last = ProgressLine(event="progress")
        self.job, self._heart, self._beside = job, heart, beside
        self._echo = Echo(job)
        self._offset, self._heard_at = 0, time.monotonic()

    @property
    def lingers(self) -> bool:
        """Whether it has said its last word long ago."""
        silent = time.monotonic() - self._heard_at
        return self.last.event in LAST_WORDS and silent > LINGER_SECONDS

    def close(self) -> None:
        """Pass on the last of what it printed."""
        self._echo.end()

    def listen(self) -> None:
        """Hear what is new. Raises what kept a checkpoint from being kept."""
        self._beside.check()
        self._echo.listen()
        for behind, line in self.job.read(self._offset):
            self._offset, self._heard_at = behind, time.monotonic()
            self.last = line
            if line.event == "checkpoint":
                self._beside.add(line)
            else:
                self._heart.say(line)


def asked_to_stop(heart: Heart, stopping: Callable[[], bool]) -> End | None:
    """What the job was told to come to, if anything."""
    if heart.orders.cancel:
        return End.CANCELLED
    if heart.orders.pause:
        return End.PAUSED
    if heart.orders.budget_spent:
        return End.BUDGET_SPENT
    return End.STOPPED if stopping() else None


def _ended(ears: _Ears, status: int | None) -> Outcome:
    last = ears.last
    if last.event == "done":
        return Outcome(End.DONE)
    if last.event == "stopped":
        return Outcome(End.STOPPED)  # somebody else told it to, such as a machine shutting down
    failure = last.failure or _death(status, last)
    return Outcome(End.FAILED, failure.model_copy(update={"log": ears.job.log_tail()}))


def _death(status: int | None, last: ProgressLine) -> Failure:
    """The failure of a process that ended without a word about it."""
    suggestion = "Retry it; the log's last lines may say more."
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
