"""A worker that is stopped must not take the database's lock with it."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

from benchmarks.storm.standstill import freeze, sqlite_free


def test_who_is_within_a_transaction_goes_on_until_it_ends(tmp_path: Path) -> None:
    """The lock is held by this test, and given back at the first SIGCONT."""
    file = tmp_path / "tdmr.db"
    sent: list[signal.Signals] = []
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        closing(sqlite3.connect(file, isolation_level=None)) as holder,
        subprocess.Popen(command) as process,
    ):
        holder.execute("BEGIN IMMEDIATE")

        def send(number: signal.Signals) -> None:
            sent.append(number)
            process.send_signal(number)
            if number == signal.SIGCONT:
                holder.execute("ROLLBACK")

        try:
            freeze(process.pid, send, partial(sqlite_free, file))
            assert sent == [signal.SIGSTOP, signal.SIGCONT, signal.SIGSTOP]
            assert Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T"
        finally:
            process.kill()
