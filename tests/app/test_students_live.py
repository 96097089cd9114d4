"""Students of a real server: downloads that break off, and clients that don't wait."""

from __future__ import annotations

import base64
import hashlib
import io
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.served import Running, serving
from tdmr.client import Client
from tests.app.live import publish
from tests.app.networks import Networks, endless, exported
from tests.shapes import draw
from tests.support import wait_until

CUTS = 60
NOISE = random.Random(1).randbytes(3 << 20)
FILES = {"model.safetensors": NOISE, "config.json": b"{}\n", "empty.csv": b""}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server without a worker, that works on one prediction at a time."""
    folder = tmp_path_factory.mktemp("server")
    options = {
        "max_predictions": "1",
        "prediction_seconds": "300",
        "prediction_wait_seconds": "0.5",
    }
    with serving(folder, "--no-worker", **options) as running:
        yield running


@pytest.fixture(scope="module")
def student(server: Running) -> str:
    """A student's address."""
    return f"/v1/students/{publish(server, FILES)}"


def fetch(server: Running, url: str, most: int | None = None, **headers: str) -> httpx.Response:
    """An answer, of whose body at most so many bytes are read before the connection is cut."""
    lines = [f"GET {url} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {server.key}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    with server.connect() as connection:
        connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        got = b""
        while b"\r\n\r\n" not in got:
            got += connection.recv(1)
        head, _, body = got.partition(b"\r\n\r\n")
        while most is None or len(body) < most:
            piece = connection.recv(1 << 16 if most is None else min(1 << 16, most - len(body)))
            if not piece:
                break
            body += piece
    first, *rest = head.decode().split("\r\n")
    found = [line.partition(": ")[::2] for line in rest]
    return httpx.Response(int(first.split()[1]), headers=found, content=body)


@pytest.mark.parametrize("seed", range(3))
def test_a_download_that_breaks_off_again_and_again(
    server: Running, student: str, seed: int
) -> None:
    dice, url = random.Random(seed), f"{student}/files/model.safetensors"
    first = fetch(server, url, dice.randrange(1, 1 << 16))
    assert (first.status_code, first.headers["Accept-Ranges"]) == (200, "bytes")
    got, condition = first.content, {"If_Range": first.headers["ETag"]}
    cuts = 1
    while len(got) < len(NOISE):
        most = dice.randrange(1, 2 * len(NOISE) * 3 // CUTS)
        answer = fetch(server, url, most, Range=f"bytes={len(got)}-", **condition)
        assert answer.status_code == 206
        span = f"bytes {len(got)}-{len(NOISE) - 1}/{len(NOISE)}"
        assert answer.headers["Content-Range"] == span
        assert answer.headers["Repr-Digest"] == first.headers["Repr-Digest"]
        got += answer.content
        cuts += 1
    assert cuts >= 20
    digest = base64.b64encode(hashlib.sha256(got).digest()).decode()
    assert first.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert first.headers["ETag"] == f'"{hashlib.sha256(NOISE).hexdigest()}"'


def test_an_archive_that_breaks_off(server: Running, student: str) -> None:
    dice, url = random.Random(9), f"{student}/archive"
    first = fetch(server, url, 1000)
    length, got = int(first.headers["Content-Length"]), first.content
    while len(got) < length:
        most = dice.randrange(1, length // 5)
        tag = first.headers["ETag"]
        answer = fetch(server, url, most, Range=f"bytes={len(got)}-", If_Range=tag)
        assert answer.status_code == 206
        got += answer.content
    assert got == fetch(server, url).content
    with zipfile.ZipFile(io.BytesIO(got)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in FILES} == FILES


@pytest.mark.parametrize("tag", ['"other"', "W/TAG", "Sat, 21 Nov 2026 00:00:00 GMT"])
def test_what_may_be_another_file_is_sent_whole(server: Running, student: str, tag: str) -> None:
    url = f"{student}/files/model.safetensors"
    tag = tag.replace("TAG", fetch(server, url, 1).headers["ETag"])
    answer = fetch(server, url, Range="bytes=1000-", If_Range=tag)
    assert (answer.status_code, "Content-Range" in answer.headers) == (200, False)
    assert answer.content == NOISE


def test_a_client_that_doesnt_wait_frees_its_place(server: Running, networks: Networks) -> None:
    def order(content: bytes) -> str:
        files = {"model.onnx": content}
        return f"/v1/students/{publish(server, files, exported('model.onnx'))}/predict"

    buffer = io.BytesIO()
    draw("circle", 1).save(buffer, "PNG")
    image = buffer.getvalue()
    head = (
        f"POST {order(endless())} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        f"Authorization: Bearer {server.key}\r\nContent-Length: {len(image)}\r\n\r\n"
    )
    patient, log = order(networks.onnx()), server.data.parent / "log"
    with server.client() as client:

        def ask() -> httpx.Response:
            return client.post(patient, content=image, headers={"Content-Type": "image/png"})

        with server.connect() as connection:
            connection.sendall(head.encode() + image)
            wait_until(lambda: ask().status_code == 503)  # the only turn is taken, for ever
            assert ask().json()["code"] == "busy"
        wait_until(lambda: "client_gone" in log.read_text())
        assert ask().status_code == 200


def test_our_client_asks_for_both(server: Running, networks: Networks, tmp_path: Path) -> None:
    student_id = publish(server, {"model.onnx": networks.onnx()}, exported("model.onnx"))
    paths = [tmp_path / f"{label}.png" for label in ("circle", "square")]
    for path in paths:
        draw(path.stem, 1).save(path)
    with Client(server.address, server.key) as client:
        found = client.predict(student_id, paths, top=2)
        assert [len(each.classes) for each in found] == [2, 2]
        assert found[1] == client.predict(student_id, paths[1:], top=2)[0]
        ranked = client.recommend(max_latency_ms=10.0, max_params=10**6)
        assert [each.limit for each in ranked.data[0].reasons] == [
            "max_params",
            "max_latency_ms",
        ]
