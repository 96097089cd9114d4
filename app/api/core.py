"""What every route works with: settings, database, storage, the outbox's relay, and the caller."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from app.access.keys import Caller
from app.access.limits import Limiter
from app.access.usage import Usage
from app.api.glance import Glances
from app.api.lookout import Lookout
from app.api.pool import Pool
from app.db import Database
from app.jobs.boards import Boards
from app.jobs.watch import Watch
from app.outbox import Relay
from app.settings import Settings
from app.storage import Storage
from app.webhooks.sender import Sender


@dataclass
class Core:
    """The parts of one server."""

    settings: Settings
    database: Database
    storage: Storage
    relay: Relay
    pool: Pool
    sender: Sender
    limiter: Limiter
    usage: Usage
    glances: Glances
    boards: Boards
    readers: Executor  # for what takes less time than to find a thread of the framework's
    lookout: Lookout
    watch: Watch
    registry: CollectorRegistry  # what /metrics says
    streams: int = 0  # that are open


async def core_of(request: Request) -> Core:
    """The server that a request came to."""
    return cast("Core", request.app.state.core)


async def caller_of(request: Request) -> Caller:
    """Who a request comes from; the guard has found out before anything else was read."""
    return cast("Caller", request.state.caller)


CoreDep = Annotated[Core, Depends(core_of)]
CallerDep = Annotated[Caller, Depends(caller_of)]
