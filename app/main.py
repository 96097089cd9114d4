"""The server: `create_app` puts its parts together. Importing this does no work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from fastapi import FastAPI

from app.api import (
    catalog,
    datasets,
    docs,
    health,
    images,
    jobs,
    predictions,
    problems,
    resumable,
    students,
    webhooks,
)
from app.api.core import Core
from app.api.guard import GuardedRoute
from app.api.middleware import Envelope
from app.api.pool import Pool
from app.api.tus import Tus
from app.db import Database
from app.outbox import Relay
from app.settings import Settings
from app.storage import LocalStorage
from app.webhooks.network import Network
from app.webhooks.sender import Sender

MODULES = (
    datasets,
    images,
    resumable,
    catalog,
    jobs,
    students,
    predictions,
    webhooks,
    health,
    docs,
)


def create_app(settings: Settings | None = None, network: Network | None = None) -> FastAPI:
    """A server on a migrated database; it opens its files and connections when it starts.

    `network` is what webhooks go out by; None: what the settings say.
    """
    settings = settings or Settings()
    database = Database(settings.url)
    core = Core(
        settings=settings,
        database=database,
        storage=LocalStorage(settings.storage_dir),
        relay=Relay(database, settings),
        pool=Pool(settings),
        sender=Sender(database, settings, network),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        core.relay.start()
        core.sender.start()
        yield
        core.sender.stop()
        core.relay.stop()
        database.close()

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


def _describe(app: FastAPI) -> None:
    @cache
    def openapi() -> dict[str, Any]:
        return docs.document(app)

    app.openapi = openapi  # type: ignore[method-assign]
