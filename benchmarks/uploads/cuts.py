"""An upload whose connection is cut again and again, at random bytes, until all of it is there."""

from __future__ import annotations

import hashlib
import io
import random
import socket
import struct
import time
import zipfile
from dataclasses import dataclass

import httpx
import numpy as np
from PIL import Image

from benchmarks.served import Running

TUS = {"Tus-Resumable": "1.0.0"}
PIECE = {**TUS, "Content-Type": "application/offset+octet-stream"}
SIDE = 512
SETTLE_SECONDS = 60
LINGER = struct.pack("ii", 1, 0)  # close with a reset instead of a farewell


@dataclass(frozen=True)
class Outcome:
    """What came of one upload."""

    cuts: int
    sent: int  # bytes of the requests that were cut
    kept: int  # of them
    equal: bool
    dataset_id: str


def archive(mebibytes: int, seed: int) -> bytes:
    """A good archive of about that size: noise, so that nothing of it can be packed."""
    draw = np.random.default_rng(seed)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for number in range(max(4, (mebibytes << 20) // (SIDE * SIDE * 3))):
            pixels = draw.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            image = io.BytesIO()
            Image.fromarray(pixels).save(image, "png", compress_level=0)
            file.writestr(f"{'ab'[number % 2]}/{number}.png", image.getvalue())
    return made.getvalue()


def run(server: Running, content: bytes, cuts: int, seed: int) -> Outcome:
    """Upload `content`, cut off so many times. Raises AssertionError when an offset can't be."""
    draw = random.Random(seed)
    sent = kept = 0
    with server.client() as client:
        headers = {**TUS, "Upload-Length": str(len(content))}
        url = client.post("/v1/uploads", headers=headers).headers["Location"]
        offset = furthest = 0
        for cut in range(cuts):
            rest = len(content) - offset
            count = draw.randrange(max(1, min(rest, 2 * rest // (cuts - cut))))
            _send_and_cut(server, url, content, offset, count, reset=draw.random() < 0.5)
            reached = _settled(client, url)
            furthest = max(furthest, offset + count)
            assert offset <= reached <= furthest, (offset, count, reached)
            sent, kept, offset = sent + count, kept + reached - offset, reached
        dataset = client.get(_finished(client, url, content)).json()
    equal = dataset["upload_sha256"] == hashlib.sha256(content).hexdigest()
    return Outcome(cuts, sent, kept, equal, dataset["id"])


def _send_and_cut(
    server: Running, url: str, content: bytes, offset: int, count: int, *, reset: bool
) -> None:
    """Promise everything that is missing, and go away after `count` bytes of it."""
    lines = [
        f"PATCH {url} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {server.key}",
        *(f"{name}: {value}" for name, value in PIECE.items()),
        f"Upload-Offset: {offset}",
        f"Content-Length: {len(content) - offset}",
    ]
    with server.connect() as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        connection.sendall(content[offset : offset + count])
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)


def _finished(client: httpx.Client, url: str, content: bytes) -> str:
    """Send what is missing; where the dataset is."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        offset = _settled(client, url)
        headers = {**PIECE, "Upload-Offset": str(offset)}
        response = client.patch(url, content=content[offset:], headers=headers)
        if response.status_code == 204:
            return response.headers["Tdmr-Dataset"]
        assert response.status_code in (409, 423), response.text  # a cut one came in between
        assert time.monotonic() < deadline


def _settled(client: httpx.Client, url: str) -> int:
    """Where the upload is once the server has noticed: nothing more comes from the cut request."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found = client.head(url, headers=TUS)
        assert found.status_code == 200, found.status_code
        offset = found.headers["Upload-Offset"]
        nothing = client.patch(url, content=b"", headers={**PIECE, "Upload-Offset": offset})
        if nothing.status_code == 204:
            return int(offset)
        assert nothing.status_code in (409, 423), nothing.text
        assert time.monotonic() < deadline, "the server never noticed that the client is gone"
        time.sleep(0.01)
