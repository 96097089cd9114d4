"""Stopping a worker (SIGSTOP) where it hinders nobody."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.storm import procs
from benchmarks.storm.arena import until

FREEZES = 50


def freeze(pid: int, send: Callable[[signal.Signals], object], free: Callable[[], bool]) -> None:
    """SIGSTOP a worker, but not within a transaction: on SQLite that would stop everybody.

    `free` tells whether somebody else can write.
    """
    for _ in range(FREEZES):
        send(signal.SIGSTOP)
        if until(lambda: procs.stopped(pid)) and free():
            return
        send(signal.SIGCONT)
        time.sleep(0.05)
    raise AssertionError("a worker is always within a transaction")


def sqlite_free(file: Path) -> bool:
    """Whether nobody holds the write lock of the database in `file`."""
    # Not for long: the worker that stands still meanwhile must not lose its lease by that.
    connection = sqlite3.connect(file, timeout=0.1, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE").close()
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return True
