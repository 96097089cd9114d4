"""Files that arrive in pieces, in a folder of this machine's own until they are whole."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import DiskFullError, LockedError

CHUNK = 1 << 20
KEPT = "What had arrived before is kept."


class Part:
    """A file that arrives in pieces. Whoever holds it is the only one who does.

    What `write` raises for a full disk is DiskFullError; nothing of it is durable before `sync`.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self.bytes = os.fstat(handle).st_size

    def write(self, chunk: bytes) -> None:
        """Append `chunk`."""
        rest = memoryview(chunk)
        with room(KEPT):
            while rest:
                written = os.pwrite(self._handle, rest, self.bytes)
                self.bytes += written
                rest = rest[written:]

    def sync(self) -> None:
        """Make everything written durable."""
        with room(KEPT):
            os.fsync(self._handle)

    def cut(self, size: int) -> None:
        """Forget all behind the first `size` bytes."""
        os.ftruncate(self._handle, size)
        self.bytes = size

    def read(self, start: int, count: int) -> bytes:
        """At most `count` bytes from `start` on."""
        return os.pread(self._handle, count, start)

    def chunks(self) -> Iterator[bytes]:
        """The whole, read again in constant memory."""
        place = 0
        while chunk := self.read(place, CHUNK):
            place += len(chunk)
            yield chunk

    def sha256(self) -> str:
        """Of the whole, read again in constant memory."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def close(self) -> None:
        """Let others have it."""
        os.close(self._handle)


def begin(path: Path, root: Path) -> None:
    """Make an empty part at `path` below `root`, durable. Raises DiskFullError."""
    with room():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
        sync_folders(path.parent, root)


def take(path: Path) -> Part:
    """The part at `path`, for this caller alone until it's closed.

    The lock is the open file's own: it ends with the process at the latest. Raises LockedError
    while somebody else has it, and FileNotFoundError.
    """
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:  # raised again once the file is let go
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise LockedError("Another request is sending to this upload.") from None
        raise
    return Part(handle)


@contextmanager
def room(rest: str = "Nothing was stored.") -> Iterator[None]:
    """Say that the disk is full where it is."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"The server's disk is full. {rest}") from error
        raise


def sync_folders(folder: Path, root: Path) -> None:
    """fsync `folder` and its parents up to `root`, so that the name survives a power cut."""
    while True:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        if folder == root:
            return
        folder = folder.parent
