"""What only a real server shows: its memory, its death in an upload, and our client's patience."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.served import Running, serving
from benchmarks.uploads.cuts import PIECE, TUS, archive
from benchmarks.uploads.memory import measure
from tdmr.client import Client, InvalidError, UnauthorizedError, uploads
from tdmr.client.steps import Steps
from tests.support import wait_until

LIMIT = 50_000_000
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server without a worker."""
    with serving(tmp_path_factory.mktemp("server"), "--no-worker") as running:
        yield running


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good archive of some 40 MiB."""
    path = tmp_path_factory.mktemp("large") / "noise.zip"
    path.write_bytes(archive(40, 1))
    return path


def test_size_costs_hardly_any_memory(tmp_path: Path) -> None:
    found = measure(tmp_path, 300)
    assert found["bytes"] == 300 * MEBIBYTE
    for way in ("post", "tus", "download"):
        assert 0 < found[f"{way}_extra_bytes"] < LIMIT, way


def begin(client: httpx.Client, length: int) -> str:
    response = client.post("/v1/uploads", headers={**TUS, "Upload-Length": str(length)})
    assert response.status_code == 201
    return response.headers["Location"]


def reached(client: httpx.Client, url: str) -> int:
    return int(client.head(url, headers=TUS).headers["Upload-Offset"])


@contextmanager
def sending(server: Running, url: str, content: bytes, count: int) -> Iterator[None]:
    """A request for all of `content` that has stopped after `count` bytes."""
    lines = [f"PATCH {url} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {server.key}"]
    lines += [f"{name}: {value}" for name, value in PIECE.items()]
    lines += ["Upload-Offset: 0", f"Content-Length: {len(content)}", "", ""]
    with server.connect() as connection:
        connection.sendall("\r\n".join(lines).encode() + content[:count])
        yield


def test_what_was_counted_outlives_the_server(tmp_path: Path, large: Path) -> None:
    content = large.read_bytes()
    with serving(tmp_path, "--no-worker") as first, first.client() as client:
        url = begin(client, len(content))
        part = first.data / "storage" / "parts" / url.rpartition("/")[2]
        with sending(first, url, content, 20 * MEBIBYTE):
            # A mebibyte gathers before it's written, and sixteen before they are counted.
            wait_until(lambda: part.stat().st_size >= 18 * MEBIBYTE)
            counted = reached(client, url)
            first.process.kill()
            first.process.wait()
    assert 16 * MEBIBYTE <= counted < 18 * MEBIBYTE <= part.stat().st_size
    with serving(tmp_path, "--no-worker", key=first.key) as second, second.client() as client:
        assert reached(client, url) == counted
        headers = {**PIECE, "Upload-Offset": str(counted)}
        response = client.patch(url, content=content[counted:], headers=headers)
        assert response.status_code == 204
        found = client.get(response.headers["Tdmr-Dataset"]).json()
    assert found["upload_sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("key", [{"Idempotency-Key": "k"}, {}], ids=["key", "no-key"])
def test_a_beginning_that_breaks_off_is_found_by_its_key(
    server: Running, large: Path, key: dict[str, str]
) -> None:
    """Without one nobody could ever ask for it, and it's removed."""
    content, parts = large.read_bytes(), server.data / "storage" / "parts"
    before = set(parts.glob("*"))
    asked = {**PIECE, **key, "Upload-Length": str(len(content))}
    lines = ["POST /v1/uploads HTTP/1.1", "Host: localhost", f"Authorization: Bearer {server.key}"]
    lines += [f"{name}: {value}" for name, value in asked.items()]
    head = "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode()

    def size() -> int:
        return sum(part.stat().st_size for part in set(parts.glob("*")) - before)

    with server.connect() as connection:
        connection.sendall(head + content[: 3 * MEBIBYTE])
        wait_until(lambda: size() >= 2 * MEBIBYTE)
    if not key:
        wait_until(lambda: set(parts.glob("*")) == before)
        return
    with server.client() as client:

        def again() -> httpx.Response:
            return client.post(
                "/v1/uploads", headers={**TUS, **key, "Upload-Length": asked["Upload-Length"]}
            )

        wait_until(lambda: int(again().headers["Upload-Offset"]) >= 2 * MEBIBYTE)
        found = again()
        assert (found.status_code, found.headers["Idempotency-Replayed"]) == (201, "true")
        assert size() == int(found.headers["Upload-Offset"])
        assert client.delete(found.headers["Location"], headers=TUS).status_code == 204


def test_while_one_request_sends_another_is_refused(server: Running, large: Path) -> None:
    content = large.read_bytes()
    with server.client() as client:
        url = begin(client, len(content))
        part = server.data / "storage" / "parts" / url.rpartition("/")[2]
        with sending(server, url, content, 3 * MEBIBYTE):
            wait_until(lambda: part.stat().st_size >= 2 * MEBIBYTE)
            for method in ("PATCH", "DELETE"):
                headers = {**PIECE, "Upload-Offset": "0"}
                response = client.request(method, url, headers=headers, content=b"")
                assert (response.status_code, response.json()["code"]) == (423, "locked")
            assert reached(client, url) == 0
        wait_until(lambda: reached(client, url) >= 2 * MEBIBYTE)
        assert client.delete(url, headers=TUS).status_code == 204


class Line:
    """A way to the server that breaks after so many bytes, as often as it's told to."""

    def __init__(self, server: Running, breaks: list[int]) -> None:
        self._target, self._breaks = urlsplit(server.address), breaks
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _accept(self) -> None:
        threads = []
        with suppress(OSError):
            while True:
                near = self._listening.accept()[0]
                far = socket.create_connection((self._target.hostname, self._target.port))  # type: ignore[arg-type]  # what is given is meant to vary
                for pair in ((near, far), (far, near)):
                    threads.append(threading.Thread(target=self._carry, args=pair))
                    threads[-1].start()
        for thread in threads:
            thread.join()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                if self._breaks and target.getpeername()[1] == self._target.port:
                    self._breaks[0] -= len(piece)
                    if self._breaks[0] < 0:
                        self._breaks.pop(0)
                        break
                target.sendall(piece)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def test_our_client_goes_on_after_every_break(server: Running, large: Path) -> None:
    breaks = [200, 5 * MEBIBYTE, 300, 17 * MEBIBYTE, 1 * MEBIBYTE]
    seen: list[tuple[int, int]] = []
    with Line(server, breaks) as line, Client(line.address, server.key) as client:
        found = client.upload_dataset(
            large, on_progress=lambda *at: seen.append(at), resumable_from=MEBIBYTE
        )
    assert breaks == []
    total = large.stat().st_size
    assert found.upload_sha256 == hashlib.sha256(large.read_bytes()).hexdigest()
    assert (found.name, found.upload_bytes) == ("noise", total)
    assert seen == sorted(set(seen))
    assert (seen[0], seen[-1]) == ((0, total), (total, total))


def test_our_client_gives_up_when_its_patience_is_over(large: Path) -> None:
    with Client("http://127.0.0.1:9", "none") as client, pytest.raises(httpx.ConnectError):
        client.upload_dataset(large, resumable_from=MEBIBYTE, patience=0.1)


def test_our_client_doesnt_try_again_what_is_refused(server: Running, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.zip"
    wrong.write_bytes(b"?" * 1000)
    with Client(server.address, server.key) as client, pytest.raises(InvalidError) as caught:
        client.upload_dataset(wrong, resumable_from=0)
    assert (caught.value.status, caught.value.problem["code"]) == (422, "not_an_archive")
    with (
        Client(server.address, "none") as client,
        pytest.raises(UnauthorizedError, match="unauthorized"),
    ):
        client.upload_dataset(wrong, resumable_from=0)


def test_our_client_sends_small_files_at_once(server: Running, tmp_path: Path) -> None:
    small, seen = tmp_path / "small.zip", []
    small.write_bytes(archive(1, 2))
    with Client(server.address, server.key) as client:
        found = client.upload_dataset(small, "mine", on_progress=lambda *at: seen.append(at))
    total = small.stat().st_size
    assert (found.name, seen) == ("mine", [(total, total)])


def test_our_client_notices_another_sha256(
    server: Running, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_tus = uploads._by_tus

    def altered(archive: Path, *more: Any) -> Steps[str]:
        found = yield from by_tus(archive, *more)
        with archive.open("r+b") as file:
            file.write(b"PK\x03\x05")
        return found

    monkeypatch.setattr(uploads, "_by_tus", altered)
    content = large.read_bytes()
    try:
        with Client(server.address, server.key) as client, pytest.raises(ValueError, match="SHA"):
            client.upload_dataset(large, resumable_from=MEBIBYTE)
    finally:
        large.write_bytes(content)
