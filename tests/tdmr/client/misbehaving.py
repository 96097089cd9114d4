"""A small server on loopback that does what a good one shouldn't: refuse, cut off, say nonsense."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Reply:
    """What to answer; `cut`: the connection breaks after so many bytes of the body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


LOST = Reply(status=0)  # the connection breaks before anything is said
Script = list[Reply | Callable[[Asked], Reply]]


def says(data: Any, status: int = 200, **headers: str) -> Reply:
    """An answer in JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(data).encode(), {"Content-Type": "application/json", **named})


def refuses(status: int, code: str = "busy", **headers: str) -> Reply:
    """A problem."""
    return says({"code": code, "detail": "No.", "status": status}, status, **headers)


def hands_on(address: str, *, lost: bool = False, cut: int | None = None) -> Callable[..., Reply]:
    """Ask a real server, and lose its answer, or cut it off."""

    def reply(asked: Asked) -> Reply:
        left_out = ("Host", "Connection", "Accept-Encoding")
        headers = {name: value for name, value in asked.headers.items() if name not in left_out}
        found = httpx.request(
            asked.method, address + asked.path, headers=headers, content=asked.body, timeout=60
        )
        own = ("date", "server", "content-length", "transfer-encoding")
        kept = {name: value for name, value in found.headers.items() if name not in own}
        return LOST if lost else Reply(found.status_code, found.content, kept, cut)

    return reply


class Misbehaving:
    """The server: follows its script, one line for each request, and notes what was asked."""

    def __init__(self, script: Script) -> None:
        self.script, self.asked, self.address = script, list[Asked](), ""

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        if not self.script:
            return refuses(500, "script_is_over")
        line = self.script.pop(0)
        return line if isinstance(line, Reply) else line(asked)

    def header(self, name: str) -> list[str | None]:
        """What each request said in a header."""
        return [asked.headers.get(name) for asked in self.asked]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        told: Misbehaving = self.server.told  # type: ignore[attr-defined]  # not in the stubs
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        reply = told.answer(Asked(self.command, self.path, dict(self.headers), body))
        self.close_connection = True
        if reply is LOST:
            return
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Connection": "close"}.items():
            self.send_header(name, value)
        if reply.status != 304:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body[: reply.cut])

    do_POST = do_PATCH = do_HEAD = do_DELETE = do_GET  # noqa: N815 - the names are the library's

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@contextmanager
def misbehaving(*script: Reply | Callable[[Asked], Reply]) -> Iterator[Misbehaving]:
    """Such a server, for as long as the block lasts."""
    told = Misbehaving(list(script))
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.told = told  # type: ignore[attr-defined]  # not in the stubs
        told.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
