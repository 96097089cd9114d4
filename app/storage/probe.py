"""What the store of files can do, found out by doing it, below `.probe/` and gone afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import httpx
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store
from pydantic import SecretStr

from app.errors import AppError, StorageRefusedError
from app.settings import Settings
from app.storage import leftovers
from app.storage.connection import connect, credentials, translated
from app.storage.s3 import NOT_PARTIAL

WORDS = b"what is stored is what is read"
PART = 5 << 20  # the smallest that S3 takes
NEVER = timedelta(days=36_500)


class MissingError(Exception):
    """The store can't do it; says what follows from that."""


@dataclass(frozen=True)
class Finding:
    """One thing that a store can do or can't; only what is `needed` keeps a service from it."""

    what: str
    ok: bool
    needed: bool
    detail: str = ""

    def __str__(self) -> str:
        mark = "ok" if self.ok else "NO" if self.needed else "no"
        return f"{mark}  {self.what}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True)
class _Try:
    """A store, and a folder in it of this probe's own."""

    settings: Settings
    store: S3Store
    folder: str

    @property
    def key(self) -> str:
        return f"{self.folder}/words"

    def put(self) -> None:
        obstore.put(self.store, self.key, WORDS, use_multipart=False)

    def get(self) -> None:
        if bytes(obstore.get(self.store, self.key).bytes()) != WORDS:
            raise MissingError("other bytes come back")

    def list(self) -> None:
        if self.key not in self._keys():
            raise MissingError("a stored file isn't listed")

    def multipart(self) -> None:
        key = f"{self.folder}/parts"
        obstore.put(self.store, key, iter([bytes(PART), b"end"]), chunk_size=PART)
        if (size := obstore.head(self.store, key)["size"]) != PART + 3:
            raise MissingError(f"of {PART + 3} bytes, {size} were stored")

    def broken(self) -> None:
        def body() -> Iterator[bytes]:
            yield bytes(PART)
            raise MissingError

        with suppress(MissingError):
            obstore.put(self.store, f"{self.folder}/broken", body(), chunk_size=PART)
        if f"{self.folder}/broken" in self._keys():
            raise MissingError("half a file can be seen")

    def ranges(self) -> None:
        try:
            found = bytes(obstore.get_range(self.store, self.key, start=5, end=7))
        except BaseError as error:
            if NOT_PARTIAL not in str(error):
                raise
            raise MissingError(
                "they aren't answered with 206; files are read from the start"
            ) from None
        if found != WORDS[5:7]:
            raise MissingError("other bytes come back")

    def aborts(self) -> None:
        if credentials(self.settings) is None:
            raise MissingError("without keys in the settings, give the bucket a rule for it")
        leftovers.abort(self.settings, NEVER.total_seconds())

    def signs(self) -> None:
        address = obstore.sign(self.store, "GET", self.key, timedelta(minutes=1))
        answer = httpx.get(address, timeout=self.settings.storage_timeout_seconds, trust_env=False)
        if answer.content != WORDS:
            raise MissingError(f"they are answered with {answer.status_code}")

    def conditions(self) -> None:
        with suppress(AlreadyExistsError):
            obstore.put(self.store, self.key, WORDS, mode="create")
            raise MissingError("If-None-Match is ignored; nothing here rests on it")

    def refuses(self) -> None:
        if (keys := credentials(self.settings)) is None:
            raise MissingError("can't be tried without keys in the settings")
        wrong = {
            "storage_access_key": SecretStr(keys[0]),
            "storage_secret_key": SecretStr(f"not-{keys[1]}"),
            "storage_access_key_file": None,
            "storage_secret_key_file": None,
        }
        with suppress(StorageRefusedError), translated():
            obstore.head(connect(self.settings.model_copy(update=wrong)), self.key)
            raise MissingError("whoever reaches the store can read and change everything")

    def delete(self) -> None:
        obstore.delete(self.store, [*self._keys()])
        if left := self._keys():
            raise MissingError(f"{len(left)} deleted files are still there")

    def _keys(self) -> set[str]:
        return {each["path"] for rows in obstore.list(self.store, self.folder) for each in rows}


def probe(settings: Settings) -> list[Finding]:
    """Everything that was found out; when nothing can be stored, that alone."""
    each = _Try(settings, connect(settings), f".probe/{uuid.uuid4().hex}")
    found = [_tried("stores a file", each.put)]
    if not found[0].ok:
        return found
    signed = settings.signed_downloads
    return [
        *found,
        _tried("reads it", each.get),
        _tried("lists it", each.list),
        _tried("stores a file in parts", each.multipart),
        _tried("shows nothing of an upload that broke off", each.broken),
        _tried("reads ranges", each.ranges, needed=False),
        _tried("aborts what was left behind", each.aborts, needed=False),
        _tried("takes signed addresses", each.signs, needed=signed),
        _tried("refuses wrong credentials", each.refuses, needed=False),
        _tried("keeps conditions of writes", each.conditions, needed=False),
        _tried("deletes files", each.delete),
    ]


def _tried(what: str, action: Callable[[], None], *, needed: bool = True) -> Finding:
    try:
        with translated():
            action()
    except MissingError as error:
        return Finding(what, ok=False, needed=needed, detail=str(error))
    except AppError as error:
        return Finding(what, ok=False, needed=needed, detail=error.detail)
    except FileNotFoundError:
        return Finding(what, ok=False, needed=needed, detail="a stored file isn't there")
    except httpx.TransportError as error:
        return Finding(what, ok=False, needed=needed, detail=f"{type(error).__name__}")
    return Finding(what, ok=True, needed=needed)
