"""Puts the dashboard before a server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from app.api.core import Core


def attach(api: FastAPI) -> ASGIApp:
    """The server with the dashboard before it; the pages live as long as the server does."""
    core: Core = api.state.core
    # Pages keep nothing on disk; if the framework ever does, then among the service's own data.
    os.environ["NICEGUI_STORAGE_PATH"] = str((core.settings.data_dir / "dashboard").resolve())
    # Only now: the framework takes half a second, and reads the environment when it's loaded.
    from nicegui import app as pages
    from nicegui import ui

    from app.dashboard.door import Door
    from app.dashboard.frame import Office
    from app.dashboard.inside import Inside
    from app.dashboard.live import Live
    from app.dashboard.pages import PAGES
    from app.dashboard.paths import STATIC

    assert PAGES
    shell = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    ui.run_with(
        shell,
        title="TDMR",
        favicon=STATIC / "icon.svg",
        dark=None,
        language="en-US",
        binding_refresh_interval=None,
        reconnect_timeout=30.0,
        tailwind=False,
        show_welcome_message=False,
    )
    begun = api.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with begun(app), shell.router.lifespan_context(shell):
            pages.state.office = office = Office(core, Inside(api, core.database), Live())
            yield
            await office.live.close()
            await office.inside.close()

    api.router.lifespan_context = lifespan
    return Door(api, shell)
