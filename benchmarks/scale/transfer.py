"""An upload beside hashing and writing the same bytes, a download beside a proxy with the file."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks.served import Running, serving
from benchmarks.uploads.memory import Content, publish
from tests.support import end, free_port, wait_until

BLOCK = 1 << 20
CADDYFILE = """{{
    admin off
    auto_https off
}}
:{port} {{
    bind 127.0.0.1
    root * {folder}
    file_server
}}
"""


def measure(folder: Path, mebibytes: int, rounds: int) -> dict[str, Any]:
    """Ratios of speeds, each the median of its rounds': ours beside the other, one after the other.

    What reads and what sends is the same for both sides of a ratio.
    """
    folder.mkdir()
    content = Content(mebibytes)
    source = folder / "upload.zip"
    with source.open("wb") as file:
        for block in content.blocks():
            file.write(block)
    with serving(folder, "--no-worker", rate_upload="0", rate_read="0") as server:
        sent = [_pair(lambda: _written(source, folder), lambda: _upload(server, source), rounds)]
        url = publish(server, content)
        with proxy(folder) as address:
            key = {"Authorization": f"Bearer {server.key}"}
            theirs = partial(_read, address, "/upload.zip", {})
            sent.append(_pair(theirs, partial(_read, server.address, url, key), rounds))
    (under_up, up), (under_down, down) = sent
    return {
        "upload_over_hash_write": _ratio(under_up, up),
        "download_over_file": _ratio(under_down, down),
        "mebibytes_per_second": {
            name: round(mebibytes / statistics.median(taken))
            for name, taken in (
                *(("hash_write", under_up), ("upload", up)),
                *(("proxy", under_down), ("download", down)),
            )
        },
    }


def _pair(
    other: Callable[[], None], ours: Callable[[], None], rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of both in each round; one round before them isn't counted."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for place, act in enumerate((other, ours)):
            began = time.perf_counter()
            act()
            if number:
                found[place].append(time.perf_counter() - began)
    return found


def _ratio(under: list[float], over: list[float]) -> float:
    """How fast ours is beside the other: more is better."""
    return round(statistics.median(a / b for a, b in zip(under, over, strict=True)), 3)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def _written(source: Path, folder: Path) -> None:
    """Hash and write, durably: what an upload can't do without."""
    digest, target = hashlib.sha256(), folder / "written"
    with target.open("wb") as file:
        for block in _blocks(source):
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    target.unlink()


def _upload(server: Running, source: Path) -> None:
    headers = {
        "Authorization": f"Bearer {server.key}",
        "Content-Type": "application/zip",
        "Content-Length": str(source.stat().st_size),
    }
    with _connected(server.address) as connection, source.open("rb") as body:
        connection.request("POST", "/v1/datasets", body, headers)
        response = connection.getresponse()
        if response.status != 201:
            raise RuntimeError(response.read())
    for path in (server.data / "storage" / "uploads").rglob("*"):
        if path.is_file():
            path.unlink()


def _read(address: str, path: str, headers: dict[str, str]) -> None:
    """With a reader that costs next to nothing: a slow one would make both sides alike."""
    room = bytearray(BLOCK)
    with _connected(address) as connection:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(response.read())
        while response.readinto(room):
            pass


@contextmanager
def _connected(address: str) -> Iterator[HTTPConnection]:
    connection = HTTPConnection(urlsplit(address).netloc, timeout=600, blocksize=BLOCK)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def proxy(folder: Path) -> Iterator[str]:
    """A Caddy that serves the files of a folder; its address."""
    port, place = free_port(), folder / "Caddyfile"
    place.write_text(CADDYFILE.format(port=port, folder=folder))
    address = f"http://127.0.0.1:{port}"
    with (folder / "caddy.log").open("wb") as log:
        command = [
            str(Path(sys.executable).with_name("caddy")),
            "run",
            "--config",
            str(place),
            "--adapter",
            "caddyfile",
        ]
        environment = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        wait_until(lambda: _answers(address), process)
        yield address
    finally:
        end(process)


def _answers(address: str) -> bool:
    try:
        return httpx.head(f"{address}/upload.zip").is_success
    except httpx.TransportError:
        return False
