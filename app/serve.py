"""Serving: a socket, uvicorn with limits, and the embedded workers as child processes."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h11
import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.api import problems
from app.errors import BadRequestError
from tdmr import lifeline

KEEP_ALIVE_SECONDS = 30
SHUTDOWN_SECONDS = 20
MAX_SOCKET_BYTES = 2**20  # of one message of the dashboard's
WORKER_SECONDS = 35  # a worker hands its job back within 30
LONGEST_PAUSE = 30.0

log = structlog.get_logger(__name__)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 is any free one."""
    family, kind, number, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, number)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(address)
    return listening


def address_of(listening: socket.socket) -> str:
    """The URL at which a bound socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Protocol(H11Protocol):
    """HTTP/1.1 whose own refusals are problems like all others."""

    def send_400_response(self, msg: str) -> None:
        """Answer what isn't HTTP."""
        problem = problems.respond(BadRequestError(msg), "/", "none")
        headers = [*problem.raw_headers, (b"connection", b"close")]
        body = bytes(problem.body)
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class Server(uvicorn.Server):
    """Says when it has begun to answer, and when it is about to stop."""

    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[], None], on_stop: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_ready, self._on_stop = on_ready, on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let go of the answers that would never end, then wait for the others."""
        self._on_stop()
        await super().shutdown(sockets)


def run(
    app: Any,
    listening: socket.socket,
    on_ready: Callable[[], None],
    on_stop: Callable[[], None] = lambda: None,
    trusted_proxies: str | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then leave with SystemExit(0).

    `on_ready` is called once requests are answered, `on_stop` when no more of them are taken.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn raises the signal again when it has shut down; by default that would end this
        # process on the spot, before its caller has put anything in order.
        signal.signal(number, _leave)
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="websockets-sansio",
        ws_max_size=MAX_SOCKET_BYTES,
        ws_per_message_deflate=False,
        loop="asyncio",
        log_level="warning",
        access_log=False,
        proxy_headers=trusted_proxies is not None,
        forwarded_allow_ips=trusted_proxies or "",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    Server(config, on_ready, on_stop).run(sockets=[listening])


def _leave(*_: object) -> None:
    raise SystemExit(0)


def write_ready_file(path: Path, address: str, key: str | None) -> None:
    """Tell a program where the server is; whole or absent, and for this user's eyes only."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"address": address, "key": key, "pid": os.getpid()}, file)
    staged.replace(path)


class Worker:
    """An embedded worker: started again when it dies, and ended with this process.

    It leads a session of its own, so that Ctrl-C reaches the server alone, which then ends it
    in order. Its standard input is its lifeline: it notices however this process ends.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._command = list(command)
        self._environment = {**environment, lifeline.VARIABLE: "1"}
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, name="worker", daemon=True)

    def start(self) -> None:
        """Start the worker, and watch over it."""
        self._thread.start()

    def stop(self) -> None:
        """End the worker: it hands its job back first, for a while."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        self._thread.join(WORKER_SECONDS)
        if self._thread.is_alive():
            self._signal(signal.SIGKILL)
            self._thread.join()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _supervise(self) -> None:
        pause = 1.0
        while not self._stopping.is_set():
            began = time.monotonic()
            code = self._run_once()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > 2 * LONGEST_PAUSE:
                pause = 1.0
            log.warning("worker_ended", code=code, again_in_seconds=pause)
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _run_once(self) -> int:
        self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            self._command, stdin=subprocess.PIPE, env=self._environment, start_new_session=True
        )
        with self._process as process:
            if self._stopping.is_set():
                process.terminate()
            return process.wait()


def worker_command(device: str, devices: int, kinds: Sequence[str]) -> list[str]:
    """How an embedded worker for jobs of some kinds is started; the server never imports it."""
    only = [word for kind in kinds for word in ("--kind", kind)]
    return [sys.executable, "-m", "worker", "--device", device, "--devices", str(devices), *only]
