"""The official clients of tus against a real server: broken off, gone on with, and equal."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.served import Running, serving
from benchmarks.uploads.cuts import archive

SCRIPTS = Path(__file__).parent / "tus"
CHUNK = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server without a worker."""
    with serving(tmp_path_factory.mktemp("server"), "--no-worker") as running:
        yield running


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good archive of some 6 MiB."""
    path = tmp_path_factory.mktemp("file") / "my noise.zip"
    path.write_bytes(archive(6, 3))
    return path


def arrived(server: Running, upload: str, file: Path, name: str = "my noise") -> dict[str, Any]:
    """The dataset of a finished upload, checked against the file."""
    with server.client() as client:
        told = client.get(upload).json()
        found: dict[str, Any] = client.get(f"/v1/datasets/{told['dataset_id']}").json()
    assert told["offset"] == told["length"] == file.stat().st_size
    assert found["upload_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found["name"] == name
    return found


def ran(*command: object) -> dict[str, Any]:
    """What a client in a process of its own printed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def tuspy(*arguments: object) -> dict[str, Any]:
    return ran(sys.executable, SCRIPTS / "upload.py", *arguments)


def tus_js_client(*arguments: object) -> dict[str, Any]:
    return ran(Path(sys.executable).with_name("node"), SCRIPTS / "upload.mjs", *arguments)


@pytest.mark.parametrize("checksum", ["plain", "checksum"])
def test_the_python_client(server: Running, file: Path, tmp_path: Path, checksum: str) -> None:
    told = tuspy(server.address, server.key, file, CHUNK, tmp_path / "urls.json", checksum)
    assert told["first_offset"] == 0
    found = arrived(server, told["url"], file)
    assert told["dataset"] == f"/v1/datasets/{found['id']}"


@pytest.mark.parametrize("checksum", ["plain", "checksum"])
def test_the_python_client_goes_on_at_the_url_that_it_stored(
    server: Running, file: Path, tmp_path: Path, checksum: str
) -> None:
    where = (server.address, server.key, file, CHUNK, tmp_path / "urls.json", checksum)
    first = tuspy(*where, 3 * CHUNK)
    assert first["dataset"] is None
    second = tuspy(*where)
    assert (second["url"], second["first_offset"]) == (first["url"], 3 * CHUNK)
    arrived(server, second["url"], file)


def test_the_javascript_client(server: Running, file: Path, tmp_path: Path) -> None:
    told = tus_js_client(server.address, server.key, file, CHUNK, tmp_path / "urls.json")
    assert (told["resumed"], told["firstOffset"]) == (False, 0)
    found = arrived(server, told["url"], file)
    assert told["dataset"] == f"/v1/datasets/{found['id']}"


def test_the_javascript_client_aborts_and_goes_on_from_a_previous_upload(
    server: Running, file: Path, tmp_path: Path
) -> None:
    where = (server.address, server.key, file, CHUNK, tmp_path / "urls.json")
    first = tus_js_client(*where, 2 * CHUNK)
    assert first["stopped"]
    assert first["dataset"] is None
    second = tus_js_client(*where)
    assert (second["resumed"], second["url"]) == (True, first["url"])
    assert second["firstOffset"] == 2 * CHUNK
    arrived(server, second["url"], file)
