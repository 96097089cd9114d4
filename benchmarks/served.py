"""A real server in a process of its own, to be measured and killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from app import migrate

START_SECONDS = 90
ROOT = Path(__file__).parents[1]


class Running:
    """A server: its address, a key, and what it takes of the machine."""

    def __init__(self, process: subprocess.Popen[bytes], data: Path, address: str, key: str):
        self.process, self.data, self.address, self.key = process, data, address, key

    def client(self) -> httpx.Client:
        """A client with the key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=600)

    def connect(self) -> socket.socket:
        """A bare connection."""
        parts = urlsplit(self.address)
        assert parts.hostname is not None
        assert parts.port is not None
        return socket.create_connection((parts.hostname, parts.port), timeout=60)

    def cpu_seconds(self) -> float:
        """Processor time that it has had."""
        return cpu_seconds(self.process.pid)

    def forget_peak(self) -> int:
        """Let the peak of memory begin anew; the memory in use now, in bytes."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.peak()

    def peak(self) -> int:
        """The most memory that was ever in use, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) << 10


@contextmanager
def serving(folder: Path, *more: str, key: str | None = None, **settings: str) -> Iterator[Running]:
    """A server on `folder`; started there again, it needs the `key` that it gave the first time."""
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "app", "serve", "--port", "0", "--ready-file", str(ready)]
    if "--dashboard" not in more:  # which takes a second to load
        command.append("--no-dashboard")
    given = {f"TDMR_{name.upper()}": value for name, value in settings.items()}
    data = folder / "data"
    if "database_url" not in settings and not data.exists():
        data.mkdir()
        (data / "tdmr.db").write_bytes(_schema())
    with _started([*command, "--data", str(data), *more], folder, ready, given) as (process, told):
        yield Running(process, data, told["address"], key or told["key"])


@cache
def _schema() -> bytes:
    """A database without rows: a server that finds the newest schema starts a second sooner."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tdmr.db"
        migrate.upgrade(f"sqlite:///{path}")
        return path.read_bytes()


@contextmanager
def launched(command: list[str], folder: Path) -> Iterator[tuple[str, int]]:
    """Another server, that is told its ready file; its address and pid."""
    folder.mkdir()
    ready = folder / "ready.json"
    with _started([*command, str(ready)], folder, ready, {}) as (process, told):
        yield told["address"], process.pid


@contextmanager
def _started(
    command: list[str], folder: Path, ready: Path, settings: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    given = {name: value for name, value in os.environ.items() if not name.startswith("TDMR_")}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=given | settings, cwd=ROOT)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)
        yield process, json.loads(ready.read_text())
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has had, with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
