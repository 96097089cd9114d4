"""The way of a body into the store, piece by piece."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect

from app.api import uploads
from app.errors import AppError, EmptyBodyError, NotAnArchiveError, TooLargeError
from app.storage import LocalStorage, Stored, Writer
from tests.app.datasets.zips import Raw, good_files, pack, with_good

GOOD = pack(good_files())


def pieces(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def store(
    storage: LocalStorage, body: Sequence[bytes | None], max_bytes: int = 1 << 30
) -> tuple[Stored, int]:
    """Store a body; None is where the client goes away. Gives also how many pieces were taken."""
    messages: list[dict[str, Any]] = [
        {"type": "http.disconnect"}
        if piece is None
        else {"type": "http.request", "body": piece, "more_body": place < len(body) - 1}
        for place, piece in enumerate(body)
    ] or [{"type": "http.request", "body": b"", "more_body": False}]
    taken = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(taken)

    async def run() -> Stored:
        scope = {"type": "http", "headers": [], "method": "POST", "path": "/"}
        return await uploads.store(Request(scope, receive), storage, "uploads/x", max_bytes)

    try:
        return anyio.run(run), len(messages) - len(list(taken))
    except AppError as error:
        error.add_note(str(len(messages) - len(list(taken))))
        raise


@pytest.mark.parametrize("size", [1, 3, 4, 5, 1000, 1 << 20])
def test_however_it_comes_it_is_stored_as_it_is(storage: LocalStorage, size: int) -> None:
    stored, _ = store(storage, pieces(GOOD, size))
    assert storage.path(stored.key).read_bytes() == GOOD
    assert stored.bytes == len(GOOD)


def test_no_block_is_larger_than_it_should_be(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    write = Writer.write

    def noted(self: Writer, chunk: bytes) -> None:
        sizes.append(len(chunk))
        write(self, chunk)

    monkeypatch.setattr(Writer, "write", noted)
    content = with_good(Raw(b"a/9.png", os.urandom(9 << 20), method=0))
    store(storage, pieces(content, 1 << 16))
    assert sum(sizes) == len(content)
    assert max(sizes) <= uploads.BLOCK + (1 << 16)


@pytest.mark.parametrize("place", [0, 1, 2, 5])
def test_a_client_that_goes_away_leaves_nothing(storage: LocalStorage, place: int) -> None:
    body: list[bytes | None] = list(pieces(GOOD, 100))
    body[place] = None
    with pytest.raises(ClientDisconnect):
        store(storage, body)
    assert not [path for path in storage.root.rglob("*") if path.is_file()]


REFUSED: dict[str, tuple[list[bytes], type[AppError], int]] = {
    "nothing": ([], EmptyBodyError, 1),
    "empty-pieces": ([b"", b""], EmptyBodyError, 2),
    "text-in-bytes": ([b"n", b"o", b"p", b"e", b"!"] * 999, NotAnArchiveError, 512),
    "short": ([b"P", b"K"], NotAnArchiveError, 2),
    "no-end": (pieces(GOOD[:-22], 100), NotAnArchiveError, -1),
    "endless": ([b"PK\x03\x04", *[b"x" * (1 << 20)] * 99], TooLargeError, 3),
}


@pytest.mark.parametrize(("body", "error", "taken"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cant_be_taken_is_refused_as_early_as_it_shows(
    storage: LocalStorage, body: list[bytes], error: type[AppError], taken: int
) -> None:
    with pytest.raises(error) as caught:
        store(storage, body, max_bytes=2 << 20)
    assert caught.value.__notes__ == [str(taken if taken > 0 else len(body))]
    assert not [path for path in storage.root.rglob("*") if path.is_file()]
