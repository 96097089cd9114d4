"""Clients that cost little: bare HTTP/1.1 on kept-alive connections, in a process of their own.

A client of the usual kind would take more of the machine than the server that is measured.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
ETAG = re.compile(rb"etag: (\S+)", re.IGNORECASE)
PATIENCE = 10.0  # seconds; what takes longer is an error


@dataclass
class Order:
    """What to send: each client asks for one of the paths, again and again.

    Without `every` seconds between two requests, as fast as answers come; with `conditional`, only
    what has changed since the last answer.
    """

    address: str
    paths: list[str]
    key: str | None
    clients: int
    seconds: float
    every: float | None = None
    conditional: bool = False


@dataclass
class Told:
    """What came of it; latencies in milliseconds."""

    seconds: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    errors: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Answers, of any kind."""
        return sum(self.statuses.values())


class Connection:
    """One client."""

    def __init__(self, order: Order, path: str, told: Told) -> None:
        self._order, self._path, self._told = order, path, told
        self._etag = b""

    async def run(self, until: float) -> None:
        """Ask until the time is up; connect again after an error."""
        every = self._order.every
        if every is not None:
            await asyncio.sleep(random.random() * every)
        while time.monotonic() < until:
            try:
                await self._talk(until)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                self._told.errors += 1

    async def _talk(self, until: float) -> None:
        parts = urlsplit(self._order.address)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            while (began := time.monotonic()) < until:
                writer.write(self._request())
                async with asyncio.timeout(PATIENCE):
                    await self._answer(reader)
                self._told.latencies.append((time.monotonic() - began) * 1000)
                if self._order.every is not None:
                    await asyncio.sleep(max(0.0, began + self._order.every - time.monotonic()))
        finally:
            writer.close()

    def _request(self) -> bytes:
        lines = [f"GET {self._path} HTTP/1.1", "Host: bench"]
        if self._order.key is not None:
            lines.append(f"Authorization: Bearer {self._order.key}")
        if self._order.conditional and self._etag:
            lines.append(f"If-None-Match: {self._etag.decode()}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        status = head[9:12].decode()
        if length := LENGTH.search(head):
            await reader.readexactly(int(length[1]))
        if etag := ETAG.search(head):
            self._etag = etag[1]
        self._told.statuses[status] = self._told.statuses.get(status, 0) + 1
        if status not in ("200", "304"):
            self._told.errors += 1


async def send(order: Order) -> Told:
    """Carry out an order."""
    told = Told()
    began = time.monotonic()
    paths = [order.paths[number % len(order.paths)] for number in range(order.clients)]
    each = [Connection(order, path, told).run(began + order.seconds) for path in paths]
    await asyncio.gather(*each)
    told.seconds = time.monotonic() - began
    return told


if __name__ == "__main__":
    json.dump(asdict(asyncio.run(send(Order(**json.load(sys.stdin))))), sys.stdout)
