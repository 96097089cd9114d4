"""Files by key, in a local folder: whole or absent, and durable once `put` has returned."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from app.storage import parts
from app.storage.interface import CHUNK, Stored, Writer, check_digest, checked
from app.storage.parts import Part, room, sync_folders

MIN_FREE_BYTES = 64 * 2**20


class LocalStorage:
    """See `app.storage.interface.Storage`; `path` says where a file lies, for tests and tools."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging = root / ".staging"
        self._staging.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def writing(self, key: str) -> Iterator[Writer]:
        """Write a new file; see the interface."""
        target = self.path(key)
        staged = self._staging / uuid.uuid4().hex
        try:
            with room(), staged.open("xb") as file:
                yield Writer(file.write)
                file.flush()
                os.fsync(file.fileno())
            with room():
                target.parent.mkdir(parents=True, exist_ok=True)
                staged.replace(target)
                sync_folders(target.parent, self.root)
        finally:
            staged.unlink(missing_ok=True)

    def put(self, key: str, source: Path) -> Stored:
        """Copy a local file in."""
        with self.writing(key) as writer, source.open("rb") as file:
            while chunk := file.read(CHUNK):
                writer.write(chunk)
        return Stored(key, writer.bytes, writer.sha256)

    def fetch(self, key: str, target: Path, sha256: str | None = None) -> None:
        """Copy a stored file out; see the interface."""
        shutil.copyfile(self.path(key), target)
        check_digest(target, sha256)

    def path(self, key: str) -> Path:
        """Where `key` lies. Raises ValueError for a key that would leave the store."""
        return self.root.joinpath(*PurePosixPath(checked(key)).parts)

    def size(self, key: str) -> int | None:
        """The bytes of a stored file; None where there is none."""
        path = self.path(key)
        return path.stat().st_size if path.is_file() else None

    def read(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to, and without, `stop`."""
        with self.path(key).open("rb") as file:
            file.seek(start)
            while start < stop and (chunk := file.read(min(CHUNK, stop - start))):
                start += len(chunk)
                yield chunk

    def signed(self, key: str, seconds: float) -> str | None:
        """None: only the server opens this folder."""
        return None

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

    def begin(self, key: str) -> None:
        """Make an empty part, durable."""
        parts.begin(self.path(key), self.root)

    def part(self, key: str) -> Part:
        """The part that was begun under `key`, for this caller alone until it's closed."""
        return parts.take(self.path(key))

    def settle(self, key: str, part: Part) -> Stored:
        """The part is the stored file, once it's durable."""
        part.sync()
        return Stored(key, part.bytes, part.sha256())

    def forget_part(self, key: str) -> None:
        """Nothing: the part is the stored file."""

    def forget_staged(self, seconds: float) -> None:
        """Remove what a process that died was writing, once nobody has written to it for long."""
        latest = time.time() - seconds
        for file in self._staging.iterdir():
            if file.stat().st_mtime <= latest:
                file.unlink(missing_ok=True)

    def trouble(self) -> str | None:
        """Why nothing can be stored now."""
        if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
            return "the storage can't be written to"
        if shutil.disk_usage(self.root).free < MIN_FREE_BYTES:
            return "the storage is full"
        return None
