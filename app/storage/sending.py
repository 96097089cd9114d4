"""A body on its way into an object store: small ones at once, others part by part.

What was sent appears when all of it has; when the sender fails, obstore aborts the upload.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from queue import Queue
from threading import Thread

import obstore
from obstore.store import S3Store

from app.storage.connection import translated

PART = 8 << 20
AT_ONCE = 3  # parts on the wire: a body takes (AT_ONCE + 2) parts of memory at most
MOST_PARTS = 9_000  # S3 takes 10,000
AHEAD = 4  # blocks


def send(store: S3Store, key: str, chunks: Iterator[bytes], size: int = 0) -> None:
    """Store what `chunks` gives; `size`, where it's known, lets parts of large files be larger.

    Raises what `chunks` raises, and as `translated` does; nothing can be seen under `key` then.
    """
    part = max(PART, -(-size // MOST_PARTS))
    head = bytearray()
    for chunk in chunks:
        head += chunk
        if len(head) > part:
            break
    else:
        with translated(sending=True):
            obstore.put(store, key, bytes(head), use_multipart=False)
        return
    with translated(sending=True):
        everything = chain((bytes(head),), chunks)
        del head
        obstore.put(store, key, everything, chunk_size=part, max_concurrency=AT_ONCE)


class AbandonedError(Exception):
    """The body will never be whole."""


class Sending:
    """A thread that sends what is given to it, block by block, while more comes."""

    def __init__(self, store: S3Store, key: str) -> None:
        self._store, self._key = store, key
        self._blocks: Queue[bytes | None] = Queue(AHEAD)
        self._over = self._whole = False
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="sending", daemon=True)
        self._thread.start()

    def give(self, block: bytes) -> None:
        """Send this next. Raises as `send` once the store has refused what came before."""
        if self._error is not None:
            raise self._error
        self._blocks.put(block)

    def finish(self) -> None:
        """That was all of it: return once it's stored. Raises as `send`."""
        self._whole = True
        self._end()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Nothing can become of it: return once nothing is on its way."""
        self._end()

    def _end(self) -> None:
        self._blocks.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            send(self._store, self._key, self._given())
        except BaseException as error:  # told to whoever gives
            self._error = error
            while not self._over:  # who waits to give another one mustn't wait for ever
                self._over = self._blocks.get() is None

    def _given(self) -> Iterator[bytes]:
        while (block := self._blocks.get()) is not None:
            yield block
        self._over = True
        if not self._whole:
            raise AbandonedError
