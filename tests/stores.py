"""Object stores for the tests: rclone's server and moto's, each a process on an address of its own.

rclone refuses wrong credentials, doesn't answer ranges with 206 and ignores If-None-Match; moto
takes any credentials, and does the rest as Amazon does.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support import end, free_port, wait_until

BUCKET, ACCESS, SECRET = "files", "tdmr-test", "a secret of the tests"
BIN = Path(sys.executable).parent


@dataclass
class Store:
    """A running store."""

    kind: str
    endpoint: str
    process: subprocess.Popen[bytes]

    def settings(self, **more: Any) -> dict[str, Any]:
        """What leads to it, in a folder of the caller's own."""
        return {
            "storage_url": f"s3://{BUCKET}/{uuid.uuid4().hex}",
            "storage_endpoint": self.endpoint,
            "storage_allow_http": True,
            "storage_access_key": ACCESS,
            "storage_secret_key": SECRET,
            **more,
        }


@contextmanager
def store(
    kind: str,
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    within: Sequence[str] = (),
) -> Iterator[Store]:
    """A store of this kind on a free port; `within` is what its command begins with."""
    port = port or free_port()
    files = folder / "files"
    (files / BUCKET).mkdir(parents=True, exist_ok=True)
    auth = ["--auth-key", f"{ACCESS},{SECRET}", "--config", ""]
    command = {
        "rclone": [BIN / "rclone", "serve", "s3", files, "--addr", f"{host}:{port}", *auth],
        "moto": [BIN / "moto_server", "-H", host, "-p", str(port)],
    }[kind]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([*within, *map(str, command)], stdout=log, stderr=log)
    try:
        look = f"import socket; socket.create_connection(({host!r}, {port}))"
        seen = [*within, sys.executable, "-S", "-c", look]
        wait_until(lambda: not subprocess.run(seen, capture_output=True).returncode, process)
        if kind == "moto":
            httpx.put(f"http://{host}:{port}/{BUCKET}").raise_for_status()
        yield Store(kind, f"http://{host}:{port}", process)
    finally:
        if process.poll() is None:
            end(process)
