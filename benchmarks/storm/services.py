"""A PostgreSQL and a Redis of the storm's own, on loopback, that can be struck and come back."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from sqlalchemy import create_engine, text

from tests.support import (
    answers,
    end,
    free_port,
    postgres_account,
    postgres_binary,
    redis_binary,
    wait_until,
)

INITDB = ("-U", "tdmr", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
# The machine itself doesn't crash here, so nothing needs the disk. But a commit that was answered
# must outlive the server's own sudden end: synchronous_commit stays on.
FAST = ("-c", "fsync=off", "-c", "max_connections=300")
START_SECONDS = 180


class Service:
    """A server that is started, struck, and ended with its block."""

    def __init__(self, name: str) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix=f"tdmr-storm-{name}-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Run, and be there."""
        raise NotImplementedError

    def kill(self) -> None:
        """End at once, and leave everything as it is."""
        if self._process is not None:
            end(self._process, signal.SIGQUIT)
            self._process = None


class Postgres(Service):
    """A database server; `options` are what it is started with beside its place."""

    def __init__(self, options: Sequence[str] = FAST) -> None:
        super().__init__("pg")
        self._options = options
        self._account = postgres_account(self._folder)
        self.url = f"postgresql+psycopg://tdmr@127.0.0.1:{self.port}/postgres"
        subprocess.run(
            [postgres_binary("initdb"), "-D", str(self._folder / "data"), *INITDB],
            check=True,
            capture_output=True,
            user=self._account,
        )

    def start(self) -> None:
        """Run, after a recovery where there is something to recover."""
        where = [
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            f"unix_socket_directories={self._folder}",
        ]
        command = [postgres_binary("postgres"), "-D", str(self._folder / "data")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-p", str(self.port), *where, *self._options],
                stdout=log,
                stderr=log,
                user=self._account,
                cwd=self._folder,
            )
        engine = create_engine(self.url)
        wait_until(lambda: answers(engine.connect), self._process, START_SECONDS)
        engine.dispose()

    @property
    def pid(self) -> int:
        """Of its first process."""
        assert self._process is not None, "it runs"
        return self._process.pid

    def schema(self) -> str:
        """The address of an empty schema."""
        name = f"storm_{uuid.uuid4().hex}"
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
        engine.dispose()
        return f"{self.url}?options=-csearch_path%3D{name}"


class Redis(Service):
    """A broker that keeps nothing: when it's killed, all is lost."""

    def __init__(self) -> None:
        super().__init__("redis")
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Run, empty."""
        folder = ("--dir", str(self._folder), "--save", "", "--appendonly", "no")
        self._process = subprocess.Popen(
            [redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1", *folder],
            stdout=subprocess.DEVNULL,
        )
        reach = ("127.0.0.1", self.port)
        wait_until(
            lambda: answers(lambda: socket.create_connection(reach)), self._process, START_SECONDS
        )

    def kill(self) -> None:
        """By SIGKILL."""
        if self._process is not None:
            end(self._process, signal.SIGKILL)
            self._process = None

    def listeners(self) -> int:
        """How many clients wait for a message."""
        with redis.Redis(port=self.port) as client:
            return sum(each["cmd"] == "brpop" for each in client.client_list())

    def flush(self) -> None:
        """Forget everything."""
        with redis.Redis(port=self.port) as client:
            client.flushall()


class Cable:
    """A TCP proxy in front of a server, which can be cut: nothing comes through, nothing is said.

    Connections stay open then, as when a network drops packets; new ones are taken and not served.
    """

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._whole = threading.Event()
        self._whole.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._whole.set()
        for end_ in (self._listener, *self._open):
            with suppress(OSError):
                end_.shutdown(socket.SHUT_RDWR)
            end_.close()

    def cut(self) -> None:
        """Let nothing through."""
        self._whole.clear()

    def mend(self) -> None:
        """Let everything through again, what was held back included."""
        self._whole.set()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        self._open.append(near)
        self._whole.wait()
        try:
            far = socket.create_connection(self._to)
        except OSError:
            near.close()
            return
        self._open.append(far)
        threading.Thread(target=self._pump, args=(far, near), daemon=True).start()
        self._pump(near, far)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(1 << 16):
                self._whole.wait()
                target.sendall(chunk)
        for end_ in (source, target):
            with suppress(OSError):
                end_.shutdown(socket.SHUT_RDWR)
