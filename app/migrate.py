"""Brings a database's schema to a revision: from a checkout or an installed package alike.

Alembic takes half a second to load: a schema that is the newest already does without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.exc import OperationalError

import migrations
from app.db import Database
from app.errors import UnavailableError

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "head"
LOCK_SECONDS = 5.0  # that a revision waits for a table, behind which every request waits, too
LOCKED = "55P03"  # PostgreSQL's lock_not_available
LOCK = 0x74646D72  # "tdmr": PostgreSQL's advisory lock that one migration at a time holds


def upgrade(url: str, revision: str = HEAD, *, lock_seconds: float = LOCK_SECONDS) -> None:
    """Go forward to `revision`. Servers that start together take turns.

    Raises UnavailableError, and changes nothing, if a table isn't free within `lock_seconds`.
    """
    if revision == HEAD and current(url) == newest():
        return
    from alembic import command

    try:
        with connecting(url) as connection:
            command.upgrade(_config(connection, lock_seconds), revision)
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCKED:
            raise
        raise UnavailableError(
            f"The migration waited {lock_seconds:g} seconds for a table that another session uses, "
            "gave up and changed nothing. End what has been reading or writing for so long "
            "(pg_stat_activity names it), and try again."
        ) from error


def downgrade(url: str, revision: str) -> None:
    """Go back to `revision`; `base` is the empty schema."""
    from alembic import command

    with connecting(url) as connection:
        command.downgrade(_config(connection), revision)


def newest() -> str:
    """The newest revision: each file's name begins with its own."""
    return max(path.name.partition("_")[0] for path in (_folder() / "versions").glob("[0-9]*.py"))


def current(url: str) -> str | None:
    """A database's revision; None for one that has none yet."""
    database = Database(url)
    try:
        with database.engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
            return found
    finally:
        database.close()


@contextmanager
def connecting(url: str) -> Iterator[Connection]:
    """A connection in a transaction of its own, in which every revision is done, or none.

    SQLite rebuilds a table to change it, so its foreign keys aren't enforced meanwhile.
    """
    database = Database(url)
    if database.engine.dialect.name == "sqlite":
        event.listen(database.engine, "connect", _foreign_keys_off)
    try:
        with database.writing.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            yield connection
    finally:
        database.close()


def _foreign_keys_off(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA foreign_keys=OFF")


def _config(connection: Connection, lock_seconds: float = LOCK_SECONDS) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.attributes |= {"connection": connection, "lock_seconds": lock_seconds}
    return config


def _folder() -> Path:
    (folder,) = migrations.__path__
    return Path(folder)
