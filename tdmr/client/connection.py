"""Which server, and with which key: as given, of the environment, or as `tdmr login` kept it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

URL, KEY = "TDMR_URL", "TDMR_KEY"
TIMEOUT = 30.0  # seconds for an answer
FILE = "login.json"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class NoConnectionError(ValueError):
    """Nobody has said where the server is, or with which key to ask it."""


@dataclass(frozen=True)
class Connection:
    """A server's address and an access key."""

    address: str
    key: str

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.address)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if not good:
            raise NoConnectionError(f"{self.address!r} isn't an address like https://tdmr.example.")
        if not self.key.isascii() or not self.key.isprintable() or " " in self.key or not self.key:
            raise NoConnectionError("That isn't an access key: they look like tdmr_….")

    @property
    def exposed(self) -> bool:
        """Whether the key crosses a network unencrypted."""
        parts = urlsplit(self.address)
        return parts.scheme == "http" and parts.hostname not in LOOPBACK

    def arguments(self, timeout: float) -> dict[str, Any]:
        """What httpx's clients are made with."""
        from tdmr import __version__

        headers = {"Authorization": f"Bearer {self.key}", "User-Agent": f"tdmr/{__version__}"}
        return {"base_url": self.address, "headers": headers, "timeout": timeout}

    @classmethod
    def find(
        cls,
        address: str | None = None,
        key: str | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> Connection:
        """What is given goes before TDMR_URL and TDMR_KEY, and those before `tdmr login`.

        A key that was kept is sent to the server that it was kept for, and to no other. Raises
        NoConnectionError.
        """
        address, key = address or environment.get(URL), key or environment.get(KEY)
        if address and key:
            return cls(address, key)
        kept = load()
        address = address or (kept.address if kept else None)
        if not address:
            raise NoConnectionError(f"Which server? Run `tdmr login`, or set {URL} and {KEY}.")
        if not key and kept is not None and same(kept.address, address):
            key = kept.key
        if not key:
            raise NoConnectionError(
                f"No key is known for {address}. Run `tdmr login`, or set {KEY}."
            )
        return cls(address, key)


def same(one: str, other: str) -> bool:
    """Whether two addresses are of one server."""
    return one.rstrip("/") == other.rstrip("/")


def folder() -> Path:
    """Where this user's settings are."""
    try:
        import platformdirs
    except ImportError:  # not one of our requirements; this is what it says on Linux
        base = os.environ.get("XDG_CONFIG_HOME", "")
        return (Path(base) if Path(base).is_absolute() else Path.home() / ".config") / "tdmr"
    return platformdirs.user_config_path("tdmr", appauthor=False)


def load() -> Connection | None:
    """What was kept, if anything. Raises NoConnectionError for a file that says something else."""
    path = folder() / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Connection(str(found["url"]), str(found["key"]))
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise NoConnectionError(f"{path} can't be read. Run `tdmr login` again.") from error


def keep(connection: Connection) -> Path:
    """Keep it, for this user's eyes only; the file."""
    path = folder() / FILE
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    staged = path.with_name(f".{FILE}.{secrets.token_hex(4)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"url": connection.address, "key": connection.key}, file)
    staged.replace(path)
    return path


def forget() -> bool:
    """Forget it; whether there was anything."""
    path = folder() / FILE
    there = path.exists()
    path.unlink(missing_ok=True)
    return there
