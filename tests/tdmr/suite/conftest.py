"""A server of published files, on a free port of this machine."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Publisher:
    """What is served under which path, how, and which ranges were asked for."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    cut: int | None = None  # bytes after which the connection is closed
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """A running HTTP server; set its `files`."""
    state = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, state)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def answer(handler: BaseHTTPRequestHandler, state: Publisher) -> None:
    """Serve a file, whole or from where it is asked for."""
    state.asked.append(handler.headers.get("Range"))
    content = state.files.get(handler.path)
    if content is None:
        handler.send_error(404)
        return
    found = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
    start = int(found[1]) if found and state.ranges else 0
    if start and start >= len(content):
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(content)}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content) - start))
    # As some servers do for .tgz files: a client that decoded this would store something else.
    handler.send_header("Content-Encoding", "x-gzip")
    handler.end_headers()
    handler.wfile.write(content[start : state.cut])
