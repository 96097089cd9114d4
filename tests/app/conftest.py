"""A server in this process, keys for two owners, and the check of uploads without a worker."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app import logs
from app.access import keys
from app.access.scopes import ALL, Scope
from app.api.core import Core
from app.db import Database
from app.main import create_app
from app.settings import Settings
from tests.app.networks import Networks
from tests.app.service import Service
from tests.app.webhooks.nets import nowhere

MakeKey = Callable[..., str]


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> None:
    """As the server logs: without the variables of every frame, which takes seconds to write."""
    logs.set_up()


@pytest.fixture(scope="session")
def networks() -> Networks:
    """Students in ONNX, made on demand."""
    return Networks()


@pytest.fixture
def database(settings: Settings, migrated: Path) -> Iterator[Database]:
    """A migrated SQLite database."""
    shutil.copy(migrated, settings.data_dir / "tdmr.db")
    database = Database(settings.url)
    yield database
    database.close()


@pytest.fixture
def make_key(database: Database) -> MakeKey:
    """`make_key(owner, *scopes)`: a new key; without scopes it allows everything."""

    def make(owner: str, *scopes: Scope) -> str:
        with database.write() as session:
            return keys.create(session, owner=owner, name="test", scopes=scopes or ALL)[1]

    return make


@pytest.fixture
def app(settings: Settings, database: Database) -> FastAPI:
    """The server on the test's own database; its webhooks reach nobody."""
    return create_app(settings, nowhere())


@pytest.fixture
def core(app: FastAPI) -> Core:
    """The server's parts."""
    core: Core = app.state.core
    return core


@pytest.fixture
def anonymous(app: FastAPI) -> Iterator[TestClient]:
    """A client without a key."""
    with TestClient(app) as client:
        yield client


@pytest.fixture
def client(app: FastAPI, make_key: MakeKey) -> Iterator[TestClient]:
    """Ana's client."""
    with TestClient(app, headers={"Authorization": f"Bearer {make_key('ana')}"}) as client:
        yield client


@pytest.fixture
def service(client: TestClient, core: Core) -> Service:
    """Ana's shortcuts through the API."""
    return Service(client, core)


@pytest.fixture
def stranger(client: TestClient, make_key: MakeKey) -> dict[str, str]:
    """The headers of somebody else, to be sent with Ana's client."""
    return {"Authorization": f"Bearer {make_key('bob')}"}
