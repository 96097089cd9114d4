"""Files by key, in a local folder: whole or absent, and durable once `put` has returned."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from app.errors import DiskFullError, LockedError

CHUNK = 1 << 20
KEPT = "What had arrived before is kept."


@dataclass(frozen=True)
class Stored:
    """What was stored: its key, its size in bytes and its SHA-256 in hex."""

    key: str
    bytes: int
    sha256: str


class Writer:
    """A file being written: counts and hashes what passes through."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0

    def write(self, chunk: bytes) -> None:
        """Append `chunk`."""
        self._file.write(chunk)
        self._digest.update(chunk)
        self.bytes += len(chunk)

    @property
    def sha256(self) -> str:
        """Of everything written so far."""
        return self._digest.hexdigest()


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
        with _room(KEPT):
            while rest:
                written = os.pwrite(self._handle, rest, self.bytes)
                self.bytes += written
                rest = rest[written:]

    def sync(self) -> None:
        """Make everything written durable."""
        with _room(KEPT):
            os.fsync(self._handle)

    def cut(self, size: int) -> None:
        """Forget all behind the first `size` bytes."""
        os.ftruncate(self._handle, size)
        self.bytes = size

    def read(self, start: int, count: int) -> bytes:
        """At most `count` bytes from `start` on."""
        return os.pread(self._handle, count, start)

    def sha256(self) -> str:
        """Of the whole, read again in constant memory."""
        digest, place = hashlib.sha256(), 0
        while chunk := self.read(place, CHUNK):
            digest.update(chunk)
            place += len(chunk)
        return digest.hexdigest()

    def close(self) -> None:
        """Let others have it."""
        os.close(self._handle)


class LocalStorage:
    """Keys are POSIX paths made by the server, never a user's words."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging = root / ".staging"
        self._staging.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def writing(self, key: str) -> Iterator[Writer]:
        """Write a new file under `key`; it appears, durable, when the block ends without an error.

        Raises DiskFullError when there is no room; nothing stays behind then.
        """
        target = self.path(key)
        staged = self._staging / uuid.uuid4().hex
        try:
            with _room(), staged.open("xb") as file:
                yield Writer(file)
                file.flush()
                os.fsync(file.fileno())
            with _room():
                target.parent.mkdir(parents=True, exist_ok=True)
                staged.replace(target)
                _sync_folders(target.parent, self.root)
        finally:
            staged.unlink(missing_ok=True)

    def begin(self, key: str) -> None:
        """Make an empty part, durable."""
        target = self.path(key)
        with _room():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch(exist_ok=False)
            _sync_folders(target.parent, self.root)

    def part(self, key: str) -> Part:
        """The part that was begun under `key`, for this caller alone until it's closed.

        The lock is the open file's own: it ends with the process at the latest. Raises LockedError
        while somebody else has it, and FileNotFoundError.
        """
        handle = os.open(self.path(key), os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:  # raised again once the file is let go
            os.close(handle)
            if isinstance(error, BlockingIOError):
                raise LockedError("Another request is sending to this upload.") from None
            raise
        return Part(handle)

    def put(self, key: str, source: Path) -> Stored:
        """Copy a local file in."""
        with self.writing(key) as writer, source.open("rb") as file:
            while chunk := file.read(CHUNK):
                writer.write(chunk)
        return Stored(key, writer.bytes, writer.sha256)

    def fetch(self, key: str, target: Path) -> None:
        """Copy a stored file out."""
        shutil.copyfile(self.path(key), target)

    def path(self, key: str) -> Path:
        """Where `key` lies. Raises ValueError for a key that would leave the store."""
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or any(p in ("..", ".staging") for p in parts):
            raise ValueError(f"not a storage key: {key!r}")
        return self.root.joinpath(*parts)

    def delete(self, prefix: str) -> None:
        """Remove a file, or everything below a prefix; missing ones are fine."""
        path = self.path(prefix)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def older_than(self, seconds: float, prefix: str) -> list[str]:
        """The keys below `prefix` that were last written `seconds` ago or longer."""
        latest = time.time() - seconds
        return [
            file.relative_to(self.root).as_posix()
            for file in self.path(prefix).rglob("*")
            if file.is_file() and file.stat().st_mtime <= latest
        ]

    def forget_staged(self, seconds: float) -> None:
        """Remove what a process that died was writing, once nobody has written to it for long."""
        latest = time.time() - seconds
        for file in self._staging.iterdir():
            if file.stat().st_mtime <= latest:
                file.unlink(missing_ok=True)


@contextmanager
def _room(rest: str = "Nothing was stored.") -> Iterator[None]:
    """Say that the disk is full where it is."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"The server's disk is full. {rest}") from error
        raise


def _sync_folders(folder: Path, root: Path) -> None:
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
