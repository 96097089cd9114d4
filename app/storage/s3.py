"""Files by key in an S3-compatible object store, by obstore."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
from obstore.exceptions import GenericError

from app.errors import DamagedFileError, StorageRefusedError, StorageUnavailableError
from app.settings import Settings
from app.storage import leftovers
from app.storage.connection import connect, translated
from app.storage.interface import CHUNK, Stored, Writer, checked
from app.storage.local import LocalStorage
from app.storage.parts import Part
from app.storage.sending import Sending, send

BLOCK = 4 << 20  # asked for at once: a download takes so much memory
NOT_PARTIAL = "non-partial response"  # how obstore tells of a store whose ranges it can't trust


class S3Storage:
    """See `app.storage.interface.Storage`. Parts stay in this machine's own data folder.

    Nothing rests on conditional requests: every key is written by one attempt alone.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = connect(settings)
        self._impatient = connect(settings, impatient=True)
        self._public = connect(settings, endpoint=settings.storage_public_endpoint)
        self._near = LocalStorage(settings.storage_dir)
        self._ranges = True  # until the store shows that it has none

    @contextmanager
    def writing(self, key: str) -> Iterator[Writer]:
        """Write a new file as it comes, in constant memory; see the interface."""
        sending = Sending(self._store, checked(key))
        try:
            yield Writer(sending.give)
        except BaseException:  # whatever it was, nothing may appear
            sending.abandon()
            raise
        sending.finish()

    def put(self, key: str, source: Path) -> Stored:
        """Copy a local file in."""
        with source.open("rb") as file:
            chunks = iter(lambda: file.read(CHUNK), b"")
            return self._send(key, chunks, source.stat().st_size)

    def fetch(self, key: str, target: Path, sha256: str | None = None) -> None:
        """Copy a stored file out; its digest is counted as it comes."""
        digest = hashlib.sha256()
        try:
            with target.open("wb") as file:
                for chunk in self._whole(key):
                    file.write(chunk)
                    digest.update(chunk)
            if sha256 not in (None, digest.hexdigest()):
                raise DamagedFileError(
                    "A stored file arrived with another SHA-256 than it was stored with."
                )
        except BaseException:  # whatever it was, no half file stays
            target.unlink(missing_ok=True)
            raise

    def size(self, key: str) -> int | None:
        """The bytes of a stored file; None where there is none."""
        try:
            with translated():
                return obstore.head(self._store, checked(key))["size"]
        except FileNotFoundError:
            return None

    def read(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to, and without, `stop`: by ranges, where there are any."""
        while start < stop and (block := self._range(key, start, min(stop, start + BLOCK))):
            yield block
            start += len(block)
        if not self._ranges:
            yield from self._skimmed(key, start, stop)

    def signed(self, key: str, seconds: float) -> str | None:
        """An address that opens the file for so long without a key."""
        return obstore.sign(self._public, "GET", checked(key), timedelta(seconds=seconds))

    def delete(self, prefix: str) -> None:
        """Remove a file, or everything below a prefix; missing ones are fine."""
        with translated():
            below = [each["path"] for rows in self._list(prefix) for each in rows]
            obstore.delete(self._store, [*below, checked(prefix)])
        self._near.delete(prefix)

    def older_than(self, seconds: float, prefix: str) -> list[str]:
        """The keys below `prefix` that were last written `seconds` ago or longer."""
        latest = datetime.now(UTC) - timedelta(seconds=seconds)
        with translated():
            found = [
                each["path"]
                for rows in self._list(prefix)
                for each in rows
                if each["last_modified"] <= latest
            ]
        return sorted({*found, *self._near.older_than(seconds, prefix)})

    def begin(self, key: str) -> None:
        """Make an empty part here, durable."""
        self._near.begin(key)

    def part(self, key: str) -> Part:
        """The part that was begun here, for this caller alone until it's closed."""
        return self._near.part(key)

    def settle(self, key: str, part: Part) -> Stored:
        """Send the whole part. It stays until the row that speaks of it is committed."""
        part.sync()
        return self._send(key, part.chunks(), part.bytes)

    def forget_part(self, key: str) -> None:
        """Remove a part that was settled."""
        self._near.delete(key)

    def forget_staged(self, seconds: float) -> None:
        """Abort uploads that a process began long ago, and died."""
        self._near.forget_staged(seconds)
        leftovers.abort(self._settings, seconds)

    def trouble(self) -> str | None:
        """Why nothing can be stored now; asked once, without patience."""
        try:
            with translated():
                obstore.list(self._impatient, ".probe").collect()
        except StorageRefusedError:
            return "the object store refuses the service's credentials"
        except StorageUnavailableError:
            return "the object store doesn't answer as it should"
        return self._near.trouble()  # parts of uploads are kept there

    def _send(self, key: str, chunks: Iterator[bytes], size: int) -> Stored:
        writer = Writer(lambda _: None)

        def counted() -> Iterator[bytes]:
            for chunk in chunks:
                writer.write(chunk)
                yield chunk

        send(self._store, checked(key), counted(), size)
        return Stored(key, writer.bytes, writer.sha256)

    def _list(self, prefix: str) -> Iterator[Sequence[obstore.ObjectMeta]]:
        return obstore.list(self._store, checked(prefix), chunk_size=1000)

    def _range(self, key: str, start: int, stop: int) -> bytes:
        """A range in one piece; nothing where the store has no ranges."""
        if not self._ranges:
            return b""
        with translated():
            try:
                return bytes(obstore.get_range(self._store, checked(key), start=start, end=stop))
            except GenericError as error:
                if NOT_PARTIAL not in str(error):
                    raise
        self._ranges = False
        return b""

    def _skimmed(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """The same by reading the file from its beginning: slower, and in constant memory too."""
        place = 0
        for chunk in self._whole(key) if start < stop else ():
            if wanted := chunk[max(0, start - place) : stop - place]:
                yield wanted
            place += len(chunk)
            if place >= stop:
                return

    def _whole(self, key: str) -> Iterator[bytes]:
        with translated():
            yield from obstore.get(self._store, checked(key)).stream(min_chunk_size=CHUNK)
