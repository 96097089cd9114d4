"""A job's process: started in a group of its own, and ended together with all it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path

from tdmr.jobdir import JobDir
from tdmr.lifeline import VARIABLE

# Not for the child.
SECRETS = frozenset(
    {
        *("TDMR_DATABASE_URL", "TDMR_DATABASE_PASSWORD", "TDMR_BROKER_URL", "TDMR_BROKER_PASSWORD"),
        *("TDMR_SECRETS_DIR", "TDMR_METRICS_TOKEN"),
        *("TDMR_STORAGE_ACCESS_KEY", "TDMR_STORAGE_SECRET_KEY"),
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    }
)
# For it: what its lines and its spans belong to (`tdmr.lines`).
GIVEN: ContextVar[dict[str, str]] = ContextVar("given", default={})  # noqa: B039 - never changed


class Child:
    """One running process, the leader of its group and session.

    Its standard input is its lifeline: when this worker dies, however it dies, the child reads
    the end of the file and kills its own group (`tdmr.lifeline`).
    """

    def __init__(self, command: Sequence[str], job: JobDir) -> None:
        env = {name: value for name, value in os.environ.items() if name not in SECRETS}
        with job.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours, never a user's
                list(command),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env | GIVEN.get() | {VARIABLE: "1", "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        self.pid = self._process.pid

    def ended(self) -> int | None:
        """Its exit status once it has ended: minus the number of a signal that killed it.

        The process isn't reaped by this: its number, which is its group's, stays taken.
        """
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def terminate(self, grace: float) -> None:
        """Ask the group to end, give it `grace` seconds, then kill it; returns when it's gone."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and alive(self.pid):
            time.sleep(0.02)
        self.kill()

    def kill(self) -> None:
        """Kill whatever is left of the group; returns when nothing of it runs, and reaps it."""
        if self._process.returncode is not None:
            return  # reaped: by now its number may be another's
        self._signal(signal.SIGKILL)
        while alive(self.pid):
            time.sleep(0.01)
            self._signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def alive(group: int) -> bool:
    """Whether any process of the group still runs; zombies don't count.

    A group can hold zombies for ever where the init process doesn't reap, as in some containers,
    so Linux's process table is asked rather than the signal 0.
    """
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            # "pid (name) state ppid pgrp ...", and the name may hold anything
            state, _, pgrp = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state not in "ZX":
                return True
    return False
