"""A real server: its start, its end, and what only a real connection shows."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import func, select

from app import serve
from app.cli import FIRST_OWNER
from app.db import Database
from app.models import ApiKey, Dataset, Event, Job
from tests.app.datasets.zips import good_files, pack
from tests.app.service import MODELS, ZIP
from tests.support import end, free_port, make_dataset, wait_until

MEBIBYTE = bytes(1 << 20)


class Running:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, ready: dict[str, Any]):
        self.process, self.folder, self.ready = process, folder, ready
        self.address: str = ready["address"]

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.ready['key']}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=90)

    def connect(self) -> socket.socket:
        parts = urlsplit(self.address)
        assert parts.hostname is not None
        assert parts.port is not None
        return socket.create_connection((parts.hostname, parts.port), timeout=10)

    def datasets(self) -> int:
        database = Database(f"sqlite:///{self.folder / 'data' / 'tdmr.db'}")
        with database.read() as session:
            count = session.scalar(select(func.count()).select_from(Dataset)) or 0
            count += session.scalar(select(func.count()).select_from(Job)) or 0
        database.close()
        return count

    def files(self) -> list[Path]:
        return [p for p in (self.folder / "data" / "storage").rglob("*") if p.is_file()]

    def peak_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1])


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "app", "serve", "--data", str(folder / "data"), *more]


@contextmanager
def serving(folder: Path, *more: str, **settings: str) -> Iterator[Running]:
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command(folder, *more), "--port", "0", "--ready-file", str(ready)],
            stdout=log,
            stderr=log,
            env=os.environ | {f"TDMR_{name.upper()}": value for name, value in settings.items()},
        )
        try:
            wait_until(ready.exists, process)
            yield Running(process, folder, json.loads(ready.read_text()))
        finally:
            end(process)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server without a worker for the tests that leave it as it was."""
    with serving(tmp_path_factory.mktemp("server"), "--no-worker") as running:
        yield running


def test_it_says_where_it_is_and_its_key_to_its_user_alone(server: Running) -> None:
    path = server.folder / "ready.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert server.ready["pid"] == server.process.pid
    with server.client() as client:
        assert client.get("/v1/jobs").status_code == 200
        assert client.get("/readyz").status_code == 200
    log = (server.folder / "log").read_text()
    assert server.address in log
    assert log.count(server.ready["key"]) == 1


def test_an_aborted_upload_leaves_nothing(server: Running) -> None:
    content = pack(good_files()) + bytes(4 << 20)
    head = (
        f"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Type: application/zip\r\n"
        f"Authorization: Bearer {server.ready['key']}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    for cut in (0, 2, 500, 3 << 20):
        with server.connect() as connection:
            connection.sendall(head.encode() + content[:cut])
            if cut > 4:
                wait_until(server.files)
        wait_until(lambda: not server.files())
    assert server.datasets() == 0


def test_what_cant_be_taken_is_answered_while_it_still_comes(server: Running) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(64):
            yield MEBIBYTE

    with server.client() as client:
        response = client.post("/v1/datasets", content=body(), headers=ZIP)
        assert (response.status_code, response.json()["code"]) == (422, "not_an_archive")
    assert server.files() == []
    assert server.datasets() == 0


def test_a_large_upload_costs_hardly_any_memory(server: Running) -> None:
    def body() -> Iterator[bytes]:
        yield b"PK\x03\x04"
        for _ in range(200):
            yield MEBIBYTE

    before = server.peak_kib()
    with server.client() as client:
        response = client.post("/v1/datasets", content=body(), headers=ZIP)
    assert response.json()["code"] == "not_an_archive"  # it has no end record
    assert server.peak_kib() - before < 50 << 10
    assert server.files() == []


def test_what_isnt_http_is_a_problem_too(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "bad_request"


def test_a_hundred_equal_orders_at_once_are_one_job(tmp_path: Path, any_url: str) -> None:
    barrier = Barrier(100)
    with serving(tmp_path, "--no-worker", database_url=any_url) as running:
        database = Database(any_url)
        order = {**MODELS, "dataset_id": make_dataset(database, owner=FIRST_OWNER)}
        limits = httpx.Limits(max_connections=100)
        headers = {"Authorization": f"Bearer {running.ready['key']}", "Idempotency-Key": "k"}

        def send(client: httpx.Client) -> httpx.Response:
            barrier.wait()
            return client.post("/v1/jobs", json=order)

        options = {"base_url": running.address, "headers": headers, "limits": limits}
        with httpx.Client(**options, timeout=90) as client, ThreadPoolExecutor(100) as pool:
            found = list(pool.map(send, [client] * 100))
        assert {(each.status_code, each.json()["id"]) for each in found} == {
            (201, found[0].json()["id"])
        }
        assert sum("Idempotency-Replayed" in each.headers for each in found) == 99
        with database.read() as session:
            assert session.scalars(select(Job.id)).all() == [found[0].json()["id"]]
            assert session.scalars(select(Event.type)).all() == ["submitted"]
        database.close()


def test_it_ends_in_order_and_starts_again_with_the_keys_it_had(tmp_path: Path) -> None:
    with serving(tmp_path, "--no-worker") as first:
        key = first.ready["key"]
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(90) == 0
    with serving(tmp_path, "--no-worker") as second:
        assert second.ready["key"] is None
        response = httpx.get(
            f"{second.address}/v1/jobs", headers={"Authorization": f"Bearer {key}"}
        )
        assert response.status_code == 200
        second.process.send_signal(signal.SIGINT)
        assert second.process.wait(90) == 0
    assert "keys create" in (tmp_path / "log").read_text()


def worker_pids(log: Path) -> list[int]:
    """The workers that have said they are open."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line["pid"] for line in lines if line.get("event") == "open"]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_its_workers_are_started_again_and_die_with_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(tmp_path) as running:
        wait_until(lambda: len(worker_pids(log)) == 2)
        os.kill(worker_pids(log)[0], signal.SIGKILL)
        wait_until(lambda: len(worker_pids(log)) == 3)
        running.process.kill()
        running.process.wait()
        wait_until(lambda: all(gone(pid) for pid in worker_pids(log)))


def test_its_workers_end_before_it_does(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(tmp_path) as running:
        wait_until(lambda: len(worker_pids(log)) == 2)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(90) == 0
        assert all(gone(pid) for pid in worker_pids(log))
    assert log.read_text().count('"event": "closed"') == 2


def refused(folder: Path, *more: str) -> str:
    ran = subprocess.run(command(folder, *more), capture_output=True, text=True, timeout=90)
    assert ran.returncode == 1
    assert ran.stdout == ""
    return ran.stderr


def test_beyond_this_machine_only_with_keys(tmp_path: Path) -> None:
    assert "keys create" in refused(tmp_path, "--host", "0.0.0.0", "--port", "0")
    database = Database(f"sqlite:///{tmp_path / 'data' / 'tdmr.db'}")
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(ApiKey)) == 0
    database.close()


def test_a_port_that_is_taken_is_said_and_no_key_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        said = refused(tmp_path, "--port", port)
    assert port in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("example.org", False),
    ],
)
def test_loopback(host: str, own: bool) -> None:
    assert serve.is_loopback(host) is own


def test_the_address_of_a_socket() -> None:
    port = free_port()
    with serve.listen("127.0.0.1", port) as listening:
        assert serve.address_of(listening) == f"http://127.0.0.1:{port}"


def test_a_worker_that_ignores_everything_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "WORKER_SECONDS", 0.3)
    mark = tmp_path / "mark"
    code = (
        "import os,pathlib,signal,sys,time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"
    )
    worker = serve.Worker([sys.executable, "-c", code, str(mark)], dict(os.environ))
    worker.start()
    wait_until(lambda: mark.exists() and mark.read_text())
    began = time.monotonic()
    worker.stop()
    assert time.monotonic() - began < 45
    assert gone(int(mark.read_text()))
