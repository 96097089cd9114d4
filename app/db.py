"""The database: two kinds of session, and the database's own clock.

`Database.read()` sees a snapshot and can't write. `Database.write()` is one transaction that
commits when its block ends; on SQLite it takes the write lock first (BEGIN IMMEDIATE), so that
it never fails halfway with SQLITE_BUSY.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import (
    DateTime,
    Dialect,
    Engine,
    MetaData,
    TypeDecorator,
    create_engine,
    event,
    make_url,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.functions import FunctionElement

from app.settings import Settings

log = structlog.get_logger(__name__)

_COMMITTED = "committed"
BUSY_SECONDS = 30  # how long a SQLite writer waits for its turn
FILE_CONNECTIONS = 15  # of a process to a SQLite file at once
# Seconds to connect, and milliseconds until an answer that never comes is an error.
POSTGRES_PATIENCE = {"connect_timeout": 5, "tcp_user_timeout": 20_000}
# A host that is cut off within a transaction leaves its locks: PostgreSQL waits hours for it.
IDLE_SECONDS = 120  # in a transaction, after which PostgreSQL ends the session


class Base(DeclarativeBase):
    """Base of every table; constraints are named so that migrations can name them too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC: aware in Python on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times: they would be read as another moment elsewhere."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone can't be stored")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Give back an aware time."""
        if value is None:
            return None
        assert isinstance(value, datetime)
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class utcnow(FunctionElement[datetime]):  # noqa: N801 - a SQL function, named like one
    """The database's clock, to the microsecond (SQLite: to the millisecond)."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(utcnow, "sqlite")
def _utcnow_sqlite(element: utcnow, compiler: Any, **kw: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


@compiles(utcnow, "postgresql")
def _utcnow_postgresql(element: utcnow, compiler: Any, **kw: Any) -> str:
    return "clock_timestamp()"


def new_id(prefix: str) -> str:
    """An opaque id that sorts by the time it was made: prefix, 48 bits of ms, 64 random bits."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}"


class Database:
    """An engine and the two ways to talk to it."""

    def __init__(self, url: str, **pool: Any) -> None:
        self.engine = _engine(url, **pool)
        self.writing = self.engine.execution_options(tdmr_write=True)
        # Has the last word in each of `write`'s transactions: app.audit.note in a server.
        self.before_commit: Callable[[Session], None] | None = None

    @classmethod
    def of(cls, settings: Settings, name: str) -> Database:
        """The database of a process that PostgreSQL's tables of activity call `name`."""
        url = settings.url
        if url.startswith("sqlite"):
            return cls(url)
        connecting = {"fallback_application_name": name}
        if settings.database_statement_seconds:
            options = make_url(url).query.get("options", "")
            limit = f"-c statement_timeout={settings.database_statement_seconds * 1000:.0f}"
            connecting["options"] = f"{options} {limit}".strip()
        return cls(
            url,
            pool_size=settings.database_pool_size,
            max_overflow=settings.database_pool_overflow,
            pool_timeout=settings.database_pool_seconds,
            pool_recycle=settings.database_recycle_seconds,
            connect_args=connecting,
        )

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; whatever it changed is rolled back. What it read stays usable."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is one transaction: committed at the end, or rolled back on any error."""
        with Session(self.writing, expire_on_commit=False) as session, session.begin():
            yield session
            if self.before_commit is not None:
                self.before_commit(session)
        for action in session.info.get(_COMMITTED, ()):
            try:
                action()
            except Exception:  # the caller must not take it for a transaction that failed
                log.exception("after_commit_broke")

    def fill(self) -> None:
        """Open the connections that the pool keeps, which it would else do as it gets busy."""
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)
        with ExitStack() as opened:
            for _ in range(pool.size()):
                opened.enter_context(self.engine.connect())

    def close(self) -> None:
        """Give every connection back."""
        self.engine.dispose()


def after_commit(session: Session, action: Callable[[], None]) -> None:
    """Have `action` called once the `write` transaction is committed, and not if it isn't.

    What it raises is logged and goes no further.
    """
    session.info.setdefault(_COMMITTED, []).append(action)


def now(session: Session) -> datetime:
    """The moment, by the database's clock: the only clock that leases are measured with."""
    moment: datetime | None = session.scalar(select(utcnow()))
    assert moment is not None
    return moment


def _engine(url: str, *, connect_args: dict[str, str] | None = None, **pool: Any) -> Engine:
    if not url.startswith("sqlite"):
        connecting = {**POSTGRES_PATIENCE, **(connect_args or {})}
        served = create_engine(url, pool_pre_ping=True, connect_args=connecting, **pool)
        event.listen(served, "connect", _let_go_of_locks)
        return served
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_SECONDS},
        # None above those: SQLite keeps a closed connection's descriptor while others are open.
        pool_size=FILE_CONNECTIONS,
        max_overflow=0,
        pool_use_lifo=True,
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the `begin` listener below decides how to begin
        _use_wal(connection)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        write = connection.get_execution_options().get("tdmr_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _let_go_of_locks(connection: Any, _record: Any) -> None:
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
    connection.commit()


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to its write-ahead log: once for ever, and nobody else may be in it then.

    SQLite doesn't wait for that moment by itself.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
