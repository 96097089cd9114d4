"""Failpoints: named moments at which a process can be made to die, to prove that nothing is lost.

`TDMR_FAILPOINT=NAME:FILE` kills the process that comes to NAME by SIGKILL, once: FILE is made
first, and where it exists already the process lives on. Without the variable a failpoint costs a
look into the environment.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

VARIABLE = "TDMR_FAILPOINT"
POINTS = (
    # of a worker
    "claim.committed",
    "job.prepared",
    "child.started",
    "checkpoint.stored",
    "checkpoint.committed",
    "result.stored",
    "finish.written",
    "finish.committed",
    "bell.sent",
    # of a job's process
    "checkpoint.written",
    "checkpoint.replaced",
    "result.written",
    "result.said",
)
COLLECTOR_POINTS = (  # of a worker between its jobs
    "free.written",
    "free.committed",
    "free.removed",
)


def reached(name: str) -> None:
    """Come to the failpoint `name`, one of those above: die here, if that was asked for."""
    wanted, _, marker = os.environ.get(VARIABLE, "").partition(":")
    if wanted != name:
        return
    with suppress(FileExistsError):
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.kill(os.getpid(), signal.SIGKILL)
