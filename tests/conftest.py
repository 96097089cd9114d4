"""Real parts for the tests: databases, a Redis, and workers, each ended by its process id."""

from __future__ import annotations

import gc
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from app import migrate
from app.db import Database
from app.settings import Settings
from app.storage import LocalStorage
from tests.support import (
    answers,
    end,
    free_port,
    postgres_account,
    postgres_binary,
    redis_at,
    wait_until,
)

INITDB = ["-U", "tdmr", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
FAST = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C, and so would every process started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)

QUICK: dict[str, Any] = {"poll_seconds": 0.1, "grace_seconds": 2.0}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of few tests first: theirs are the long ones, and the last to end must be short."""
    counts = Counter(item.path for item in items)
    items.sort(key=lambda item: (counts[item.path], item.path))  # stable: a file keeps its order


def pytest_collection_finish() -> None:
    """What collection has made lives to the end: the collector needn't walk it again and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Nanobind's modules would report what isn't collected at the end as leaked."""
    gc.unfreeze()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The embedded service in a folder of its own, with a lease that a test can outwait."""
    data_dir = tmp_path / "var"
    data_dir.mkdir()
    return Settings(data_dir=data_dir, lease_seconds=6.0, heartbeat_seconds=0.3, **QUICK)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """A migrated SQLite database."""
    migrate.upgrade(settings.url)
    database = Database(settings.url)
    yield database
    database.close()


@pytest.fixture
def storage(settings: Settings) -> LocalStorage:
    """The local store of `settings`."""
    return LocalStorage(settings.storage_dir)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest, settings: Settings) -> str:
    """The address of an empty database: once on SQLite, once on PostgreSQL."""
    if request.param == "sqlite":
        return settings.url
    url: str = request.getfixturevalue("postgres_schema")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Database]:
    """A migrated database: once on SQLite, once on PostgreSQL."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated"), settings.data_dir / "tdmr.db")
        url = settings.url
    else:
        url = request.getfixturevalue("postgres_copy")
    database = Database(url)
    yield database
    database.close()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database to copy: that takes a hundredth of the time."""
    path = tmp_path_factory.mktemp("migrated") / "tdmr.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> str:
    """The name of a migrated PostgreSQL database to copy."""
    with _admin(postgres_url) as execute:
        execute("CREATE DATABASE migrated")
    migrate.upgrade(_named(postgres_url, "migrated"))
    return "migrated"


@pytest.fixture
def postgres_copy(postgres_url: str, postgres_template: str) -> Iterator[str]:
    """The address of a migrated PostgreSQL database of the test's own."""
    name = f"test_{uuid.uuid4().hex}"
    with _admin(postgres_url) as execute:
        execute(f"CREATE DATABASE {name} TEMPLATE {postgres_template} STRATEGY FILE_COPY")
    yield _named(postgres_url, name)
    with _admin(postgres_url) as execute:
        execute(f"DROP DATABASE {name} WITH (FORCE)")


def _named(url: str, name: str) -> str:
    return url.removesuffix("/postgres") + f"/{name}"


@contextmanager
def _admin(url: str) -> Iterator[Callable[[str], object]]:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield lambda statement: connection.execute(text(statement))
    engine.dispose()


@pytest.fixture
def postgres_schema(postgres_url: str) -> Iterator[str]:
    """A PostgreSQL address whose schema is new and empty."""
    name = f"test_{uuid.uuid4().hex}"
    with _admin(postgres_url) as execute:
        execute(f"CREATE SCHEMA {name}")
    yield f"{postgres_url}?options=-csearch_path%3D{name}"
    with _admin(postgres_url) as execute:
        execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL of the session's own, on a free loopback port."""
    folder = Path(tempfile.mkdtemp(prefix="tdmr-pg-"))
    account = postgres_account(folder)
    port = free_port()
    subprocess.run(
        [postgres_binary("initdb"), "-D", folder / "data", *INITDB],
        check=True,
        capture_output=True,
        user=account,
    )
    command = [postgres_binary("postgres"), "-D", folder / "data", "-p", str(port)]
    where = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, *where, *FAST], stdout=log, stderr=log, user=account, cwd=folder
        )
    url = f"postgresql+psycopg://tdmr@127.0.0.1:{port}/postgres"
    engine = create_engine(url)
    wait_until(lambda: answers(engine.connect), server)
    engine.dispose()
    yield url
    end(server, signal.SIGQUIT)  # without ceremony: nobody needs the data
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The address of a Redis of the session's own, on a free loopback port."""
    port = free_port()
    with redis_at(port):
        yield f"redis://127.0.0.1:{port}"


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """An empty Redis."""
    import redis

    url = f"{redis_server}/0"
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url
