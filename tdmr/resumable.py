"""Sending a large file by tus 1.0.0: a broken connection costs a piece of it, not the whole.

The server says how many bytes it has for good; the next piece begins there.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

PATH = "/v1/uploads"
VERSION = {"Tus-Resumable": "1.0.0"}
DATASET = "Tdmr-Dataset"
PIECE = 16 << 20  # bytes in one request
CHUNK = 1 << 20
PASSES = (409, 423, 429, 500, 502, 503, 504)  # what another try may not meet again
FINISH_SECONDS = 600.0  # the answer to the last piece comes when the whole has been read again
LONGEST_PAUSE = 10.0

Progress = Callable[[int, int], None]


def send(
    http: httpx.Client,
    archive: Path,
    name: str,
    on_progress: Progress | None = None,
    *,
    patience: float = 300.0,
    piece: int = PIECE,
) -> httpx.Response:
    """Send a file, and give the last answer: its `Tdmr-Dataset` says where the dataset is.

    `on_progress` is told how many bytes the server has for good, and how many there are. Trouble
    that may pass is waited for, up to `patience` seconds without a new byte; after that, and for
    any other refusal, the refusal is the answer. Raises httpx.TransportError when the server stays
    away.
    """
    upload = _Upload(http, archive, name, piece)
    reached, failures, deadline = -1, 0, time.monotonic() + patience
    while True:
        try:
            response = upload.step()
            passes = response.status_code in PASSES
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            passes = True
        else:
            over = response.is_error and (not passes or time.monotonic() > deadline)
            if over or DATASET in response.headers:
                if on_progress is not None and not over:
                    on_progress(upload.total, upload.total)
                return response
        if upload.offset > reached:
            reached, failures, deadline = upload.offset, 0, time.monotonic() + patience
            if on_progress is not None:
                on_progress(upload.offset, upload.total)
        if passes:
            time.sleep(min(0.2 * 2 ** min(failures, 9), LONGEST_PAUSE))
            failures += 1


class _Upload:
    """One upload: where it is, and how far."""

    def __init__(self, http: httpx.Client, archive: Path, name: str, piece: int) -> None:
        self._http, self._archive, self._name, self._piece = http, archive, name, piece
        self._url: str | None = None
        self._known = True  # whether `offset` is what the server has
        self.total = archive.stat().st_size
        self.offset = -1

    def step(self) -> httpx.Response:
        """The next request: begin, ask how far it is, or send a piece. The answer."""
        if self._url is None:
            response = self._create()
            self._url = response.headers.get("Location")
        elif self._known:
            response = self._send_piece(self._url)
        else:
            response = self._http.head(self._url, headers=VERSION)
        if response.is_success:
            self.offset, self._known = int(response.headers["Upload-Offset"]), True
        return response

    def _create(self) -> httpx.Response:
        encoded = base64.b64encode(self._name.encode()).decode()
        headers = {"Upload-Length": str(self.total), "Upload-Metadata": f"name {encoded}"}
        return self._http.post(PATH, headers={**VERSION, **headers})

    def _send_piece(self, url: str) -> httpx.Response:
        self._known = False
        count = min(self._piece, self.total - self.offset)
        headers = {
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(count),
            "Upload-Offset": str(self.offset),
        }
        return self._http.patch(
            url,
            content=_bytes(self._archive, self.offset, count),
            headers={**VERSION, **headers},
            timeout=httpx.Timeout(**{**self._http.timeout.as_dict(), "read": FINISH_SECONDS}),
        )


def _bytes(archive: Path, start: int, count: int) -> Iterator[bytes]:
    with archive.open("rb") as file:
        file.seek(start)
        while count and (chunk := file.read(min(CHUNK, count))):
            count -= len(chunk)
            yield chunk
