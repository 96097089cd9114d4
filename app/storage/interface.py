"""What the rest of the service knows of stored files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from app.errors import DamagedFileError
from app.storage.parts import Part

CHUNK = 1 << 20


@dataclass(frozen=True)
class Stored:
    """What was stored: its key, its size in bytes and its SHA-256 in hex."""

    key: str
    bytes: int
    sha256: str


class Writer:
    """A file being written: counts and hashes what passes through to `take`."""

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take
        self._digest = hashlib.sha256()
        self.bytes = 0

    def write(self, chunk: bytes) -> None:
        """Append `chunk`."""
        self._take(chunk)
        self._digest.update(chunk)
        self.bytes += len(chunk)

    @property
    def sha256(self) -> str:
        """Of everything written so far."""
        return self._digest.hexdigest()


class Storage(Protocol):
    """Files by key: whole or absent, and durable once they are there.

    Keys are POSIX paths made by the server, never a user's words; a method raises ValueError for
    another. Wherever a store is asked, StorageUnavailableError says that it doesn't answer, and
    StorageRefusedError that it doesn't take the credentials.
    """

    def writing(self, key: str) -> AbstractContextManager[Writer]:
        """Write a new file under `key`; it appears, durable, when the block ends without an error.

        Raises DiskFullError when there is no room; nothing can be seen of it then.
        """

    def put(self, key: str, source: Path) -> Stored:
        """Copy a local file in. Raises FileNotFoundError and DiskFullError."""

    def fetch(self, key: str, target: Path, sha256: str | None = None) -> None:
        """Copy a stored file out.

        Raises FileNotFoundError, and DamagedFileError where it hasn't the SHA-256 that it had; no
        file is left at `target` then.
        """

    def size(self, key: str) -> int | None:
        """The bytes of a stored file; None where there is none."""

    def read(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to, and without, `stop`, in constant memory.

        Raises FileNotFoundError.
        """

    def signed(self, key: str, seconds: float) -> str | None:
        """An address that opens the file for so long without a key; None where there is none."""

    def delete(self, prefix: str) -> None:
        """Remove a file, or everything below a prefix; missing ones are fine."""

    def older_than(self, seconds: float, prefix: str) -> list[str]:
        """The keys below `prefix` that were last written `seconds` ago or longer."""

    def begin(self, key: str) -> None:
        """Make an empty part in this machine's data folder, durable. Raises DiskFullError."""

    def part(self, key: str) -> Part:
        """The part that was begun under `key` on this machine, for this caller alone.

        Raises LockedError while somebody else has it, and FileNotFoundError.
        """

    def settle(self, key: str, part: Part) -> Stored:
        """Make the whole part a stored file under the same key. The part itself stays."""

    def forget_part(self, key: str) -> None:
        """Remove a part that was settled, and is spoken of."""

    def forget_staged(self, seconds: float) -> None:
        """Remove what a process that died was writing, once nobody has written to it for long."""

    def trouble(self) -> str | None:
        """Why files can't be stored now, in a few words; None where they can."""


def checked(key: str) -> str:
    """`key`. Raises ValueError for one that would leave the store."""
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or any(p in ("..", ".staging") for p in parts):
        raise ValueError(f"not a storage key: {key!r}")
    return key


def check_digest(target: Path, sha256: str | None) -> None:
    """Remove a fetched file that isn't what was stored. Raises DamagedFileError then."""
    if sha256 is None:
        return
    with target.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
            return
    target.unlink()
    raise DamagedFileError("A stored file arrived with another SHA-256 than it was stored with.")
