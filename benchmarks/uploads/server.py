"""A real server in a process of its own, to be measured and killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

START_SECONDS = 90
ROOT = Path(__file__).parents[2]


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
    given = {name: value for name, value in os.environ.items() if not name.startswith("TDMR_")}
    given |= {f"TDMR_{name.upper()}": value for name, value in settings.items()}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--data", str(folder / "data"), *more],
            stdout=log,
            stderr=log,
            env=given,
            cwd=ROOT,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)
        told = json.loads(ready.read_text())
        yield Running(process, folder / "data", told["address"], key or told["key"])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
