"""The server: `create_app` puts its parts together. Importing this does no work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from threading import Barrier
from typing import Any

from fastapi import FastAPI

from app import audit, metrics
from app.access.limits import Limiter
from app.access.usage import Usage
from app.api import (
    account,
    api_keys,
    catalog,
    datasets,
    docs,
    estimates,
    foundations,
    health,
    images,
    jobs,
    keeping,
    operating,
    predictions,
    problems,
    resumable,
    students,
    sweeps,
    webhooks,
)
from app.api.core import Core
from app.api.glance import Glances
from app.api.guard import GuardedRoute
from app.api.lookout import Lookout
from app.api.middleware import Envelope
from app.api.pool import Pool
from app.api.tus import Tus
from app.datasets.sweeping import PartsSweep
from app.db import Database
from app.gauges import Gauges
from app.jobs.boards import Boards
from app.jobs.watch import Watch
from app.outbox import Relay
from app.settings import Settings
from app.storage import open_storage
from app.webhooks.network import Network
from app.webhooks.sender import Sender

READERS = 4
# What is asked for most often is looked for first.
MODULES = (
    *(jobs, datasets, images, resumable, catalog, foundations, students, predictions, keeping),
    *(sweeps, estimates, webhooks, api_keys, account),
    *(health, operating, docs),
)


def create_app(settings: Settings | None = None, network: Network | None = None) -> FastAPI:
    """A server on a migrated database; it opens its files and connections when it starts.

    `network` is what webhooks go out by; None: what the settings say.
    """
    core = _core(settings or Settings(), network)
    parts = PartsSweep(core.database, core.storage, core.settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if core.settings.url.startswith("sqlite"):
            _connect(core)
        core.relay.start()
        core.usage.start()
        core.sender.start()
        parts.start()
        yield
        parts.stop()
        core.sender.stop()
        core.usage.stop()
        core.relay.stop()
        core.readers.shutdown()
        core.glances.close()
        core.boards.close()
        core.database.close()

    app = FastAPI(
        title="TDMR",
        version="1",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.core = core
    for module in MODULES:
        # Flat, not included: each route stays the object that carries its scope.
        app.router.routes.extend(module.routes.routes)
    assert all(isinstance(route, GuardedRoute) for route in app.routes)
    _describe(app)
    problems.install(app)
    app.add_middleware(Envelope)
    app.add_middleware(Tus)
    return app


def _core(settings: Settings, network: Network | None) -> Core:
    database = Database.of(settings, "tdmr-server")
    database.before_commit = audit.note
    boards = Boards(database, settings.worker_patience)
    readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
    return Core(
        settings=settings,
        database=database,
        storage=open_storage(settings),
        relay=Relay(database, settings),
        pool=Pool(settings),
        sender=Sender(database, settings, network),
        limiter=Limiter(settings),
        usage=Usage(database),
        glances=Glances(database, boards, jobs.rendered),
        boards=boards,
        readers=readers,
        lookout=Lookout(readers, READERS - 1, here=_is_near(settings)),
        watch=Watch(database, readers),
        registry=metrics.registry(metrics.SERVER, Gauges(database, settings)),
    )


def _connect(core: Core) -> None:
    """Open now all that stays open: what a server holds doesn't grow when it is busy for once."""
    met = Barrier(READERS)

    def connect(_: int) -> None:
        met.wait()  # for the others: so that each is a thread of its own
        core.glances.connect()

    core.glances.connect()
    list(core.readers.map(connect, range(READERS)))
    core.database.fill()  # last: the others took theirs out of it


def _is_near(settings: Settings) -> bool:
    """Whether a look takes no network: no database server, no broker that counts requests."""
    return settings.url.startswith("sqlite") and settings.broker_url is None


def _describe(app: FastAPI) -> None:
    @cache
    def openapi() -> dict[str, Any]:
        return docs.document(app)

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way
