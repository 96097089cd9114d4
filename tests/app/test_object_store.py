"""An object store that is away, full, or refuses us; senders that die; and what a probe says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from app import cli
from app.errors import AppError, DiskFullError, StorageRefusedError, StorageUnavailableError
from app.settings import Settings
from app.storage import Storage, connection, gate, leftovers, open_storage
from tests.stores import ACCESS, SECRET, Store, store
from tests.support import free_port

QUICK = {"storage_retry_seconds": 0.5, "storage_timeout_seconds": 5.0}


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with store("rclone", tmp_path_factory.mktemp("rclone")) as running:
        yield running


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with store("moto", tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture
def at(tmp_path: Path) -> Callable[..., Settings]:
    """`at(store, **settings)`: what leads there."""

    def make(place: Store, **more: Any) -> Settings:
        return Settings(data_dir=tmp_path, **{**place.settings(**QUICK), **more})

    return make


def every_use(storage: Storage, folder: Path) -> list[Callable[[], object]]:
    source = folder / "source"
    source.write_bytes(b"x")

    def write() -> None:
        with storage.writing("a/b") as writer:
            writer.write(b"x")

    return [
        lambda: storage.put("a/b", source),
        lambda: storage.fetch("a/b", folder / "out"),
        lambda: storage.size("a/b"),
        lambda: list(storage.read("a/b", 0, 1)),
        lambda: storage.delete("a"),
        lambda: storage.older_than(0, "a"),
        lambda: storage.forget_staged(0),
        write,
    ]


def assert_each(storage: Storage, folder: Path, error: type[AppError]) -> None:
    for use in every_use(storage, folder):
        with pytest.raises(error) as caught:
            use()
        assert caught.value.status == 503
        assert SECRET not in str(caught.value)
        assert "http" not in caught.value.detail


def test_a_store_that_is_away_is_said(
    rclone: Store, at: Callable[..., Settings], tmp_path: Path
) -> None:
    storage = open_storage(at(rclone, storage_endpoint=f"http://127.0.0.1:{free_port()}"))
    assert_each(storage, tmp_path, StorageUnavailableError)
    assert storage.trouble() == "the object store doesn't answer as it should"


def test_a_bucket_that_isnt_there_is_no_missing_file(
    rclone: Store, at: Callable[..., Settings], tmp_path: Path
) -> None:
    storage = open_storage(at(rclone, storage_url="s3://nobody-made-it/x"))
    with pytest.raises(StorageUnavailableError, match="no such bucket"):
        storage.put("a/b", Path(__file__))
    with pytest.raises(StorageUnavailableError, match="no such bucket"):
        storage.fetch("a/b", tmp_path / "out")
    assert storage.trouble() is not None


def test_credentials_that_are_refused_are_said(
    rclone: Store, at: Callable[..., Settings], tmp_path: Path
) -> None:
    storage = open_storage(at(rclone, storage_secret_key="wrong"))
    assert_each(storage, tmp_path, StorageUnavailableError)
    with pytest.raises(StorageRefusedError):
        storage.size("a/b")
    with pytest.raises(StorageRefusedError):
        storage.older_than(0, "a")
    assert storage.trouble() == "the object store refuses the service's credentials"


def test_credentials_come_from_files(
    rclone: Store, at: Callable[..., Settings], tmp_path: Path
) -> None:
    names = {"storage_access_key": ACCESS, "storage_secret_key": SECRET}
    for name, value in names.items():
        (tmp_path / name).write_text(f"{value}\n")
    files = {f"{name}_file": tmp_path / name for name in names}
    settings = at(rclone, **dict.fromkeys(names), **files)
    assert SECRET not in repr(settings)
    assert open_storage(settings).trouble() is None
    (tmp_path / "storage_secret_key").write_text("another")
    assert open_storage(settings).trouble() is not None
    (tmp_path / "storage_secret_key").unlink()
    with pytest.raises(FileNotFoundError):
        open_storage(settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"storage_url": "s3://bucket", "storage_endpoint": "http://h"}, "plain http"),
        ({"storage_url": "https://bucket/x"}, "pattern"),
        ({"storage_url": "s3://bucket/../x"}, "pattern"),
        ({"storage_access_key": "a"}, "both"),
    ],
)
def test_settings_that_cant_be_right(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**given)


def test_a_bucket_may_stand_in_the_hosts_name() -> None:
    given = {"storage_url": "s3://files/x", "storage_endpoint": "https://s3.example.com/"}
    assert connection.address_of(Settings(**given)) == "https://s3.example.com"
    named = Settings(**given, storage_path_style=False)
    assert connection.address_of(named) == "https://files.s3.example.com"


class Full(BaseHTTPRequestHandler):
    """Answers as MinIO does when its disks are full."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(507)
        self.end_headers()
        self.wfile.write(b"<Error><Code>XMinioStorageFull</Code></Error>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        pass


def test_a_full_store_is_no_unreachable_one(rclone: Store, at: Callable[..., Settings]) -> None:
    with HTTPServer(("127.0.0.1", 0), Full) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(DiskFullError, match="store of files is full"):
            open_storage(at(rclone, storage_endpoint=address)).put("a/b", Path(__file__))
        server.shutdown()
        thread.join()


def environment(settings: Settings) -> dict[str, str]:
    names = ("data_dir", "storage_url", "storage_endpoint", "storage_allow_http")
    given = {name: str(getattr(settings, name)) for name in names}
    given |= {"storage_access_key": ACCESS, "storage_secret_key": SECRET}
    return os.environ | {f"TDMR_{name.upper()}": value for name, value in given.items()}


SENDER = """
import os, sys
from app.settings import Settings
from app.storage import open_storage
with open_storage(Settings()).writing("uploads/u") as writer:
    for _ in range(40):
        writer.write(bytes(1 << 20))
    print("sent", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["rclone", "moto"])
def test_a_sender_that_dies_leaves_nothing_to_see_and_then_nothing(
    kind: str, request: pytest.FixtureRequest, at: Callable[..., Settings]
) -> None:
    settings = at(request.getfixturevalue(kind))
    sender = subprocess.Popen(
        [sys.executable, "-c", SENDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(settings),
    )
    assert sender.stdout is not None
    assert sender.stdout.readline() == b"sent\n"  # two parts at least are there by now
    sender.kill()
    sender.communicate()
    storage = open_storage(settings)
    assert storage.size("uploads/u") is None
    assert storage.older_than(-60, "uploads") == []
    if kind == "rclone":  # moto's uploads all began in 2010
        storage.forget_staged(3600)
        assert leftovers.abort(settings, 3600) == 0
    assert leftovers.abort(settings, -60) == 1
    assert leftovers.abort(settings, -60) == 0


def test_a_store_that_forgets_an_upload_is_no_missing_file(
    at: Callable[..., Settings], tmp_path: Path
) -> None:
    """rclone keeps uploads in parts in its memory: started again, it answers 404 to the next."""
    folder, port = tmp_path / "files", free_port()
    folder.mkdir()
    with store("rclone", folder, port=port) as first:
        storage = open_storage(at(first, storage_retry_seconds=20.0))
        running = ExitStack()
        writer = running.enter_context(storage.writing("uploads/u"))
        for _ in range(20):
            writer.write(bytes(1 << 20))
    with store("rclone", folder, port=port):

        def go_on() -> None:
            with running:
                for _ in range(20):
                    writer.write(bytes(1 << 20))

        with pytest.raises(StorageUnavailableError):
            go_on()
        assert storage.size("uploads/u") is None


MEMORY = """
import re, sys
from pathlib import Path
from app.settings import Settings
from app.storage import open_storage
def status(name):
    return int(re.search(rf"{name}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
storage, block = open_storage(Settings()), bytes(1 << 20)
storage.size("warm")
before = status("VmRSS")
with storage.writing("a/b") as writer:
    for _ in range(200):
        writer.write(block)
for _ in storage.read("a/b", 1 << 20, 200 << 20):
    pass
storage.fetch("a/b", Path(sys.argv[1]), writer.sha256)
print((status("VmHWM") - before) >> 10)
"""


def test_memory_is_constant(rclone: Store, at: Callable[..., Settings], tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "out"],
        env=environment(at(rclone)),
        capture_output=True,
        check=True,
    )
    assert int(ran.stdout) < 90, "mebibytes for 200"


CANT = {
    "rclone": {"reads ranges", "keeps conditions of writes"},
    "moto": {"refuses wrong credentials"},
}


@pytest.mark.parametrize("kind", CANT)
def test_a_probe_says_what_a_store_cant_do(
    kind: str, request: pytest.FixtureRequest, at: Callable[..., Settings]
) -> None:
    settings = at(request.getfixturevalue(kind))
    lines = [line for line, _ in gate.findings(settings)]
    assert len(lines) == 11
    assert {line[4:].partition(":")[0] for line in lines if line.startswith("no")} == CANT[kind]
    assert gate.obstacles(settings) == []
    assert open_storage(settings).older_than(-60, ".probe") == []


def test_a_store_that_wont_do_keeps_the_server_from_starting(
    rclone: Store, at: Callable[..., Settings]
) -> None:
    wrong = environment(at(rclone)) | {"TDMR_STORAGE_SECRET_KEY": "wrong"}
    line = "NO  stores a file: The store of files refuses the service's credentials."
    for command in ("app serve --port 0", "app check-storage", "worker --once"):
        argv = [sys.executable, "-m", *command.split()]
        ran = subprocess.run(argv, env=wrong, capture_output=True, text=True)
        assert ran.returncode == 1, command
        assert line in ran.stdout + ran.stderr


def test_a_local_folder_is_checked_too(tmp_path: Path) -> None:
    ran = CliRunner().invoke(cli.cli, ["check-storage", "--data", str(tmp_path)])
    assert (ran.exit_code, ran.output) == (0, f"ok  stores files: {tmp_path / 'storage'}\n")
