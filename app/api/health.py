"""/healthz and /readyz: for machines that watch this one."""

from __future__ import annotations

from datetime import datetime, timedelta

from fastapi import APIRouter
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.api.core import Core, CoreDep
from app.api.guard import GuardedRoute, public
from app.db import now
from app.errors import ErrorItem, UnavailableError
from app.models import Job
from tdmr.wire.service import Health, Ready

routes = APIRouter(route_class=GuardedRoute)


@routes.get("/healthz")
@public
async def healthz() -> Health:
    """Whether the process runs."""
    return Health()


@routes.get("/readyz")
@public
def readyz(core: CoreDep) -> Ready:
    """Whether the service can take work and somebody does it: database, storage, worker."""
    checks = {"database": _database(core), "storage": _storage(core)}
    if checks["database"] == "ok":
        checks["worker"] = _worker(core)
    wrong = {name: said for name, said in checks.items() if said != "ok"}
    if wrong:
        raise UnavailableError(
            "The service isn't ready: " + "; ".join(wrong.values()) + ".",
            [
                ErrorItem(pointer=f"/checks/{name}", code="not_ready", detail=said)
                for name, said in wrong.items()
            ],
        )
    return Ready(checks=checks)


def _database(core: Core) -> str:
    try:
        with core.database.read() as session:
            session.execute(select(func.count()).select_from(Job).where(Job.id == ""))
    except SQLAlchemyError:
        return "the database doesn't answer, or isn't migrated"
    return "ok"


def _storage(core: Core) -> str:
    return core.storage.trouble() or "ok"


def _worker(core: Core) -> str:
    """Work that has waited for a whole lease while nobody's heart beat means: no worker."""
    with core.database.read() as session:
        patience = timedelta(seconds=core.settings.lease_seconds)
        since = now(session) - patience
        waiting = _first(session, func.min(Job.run_after), Job.state == "queued")
        heard = _first(session, func.max(Job.heartbeat_at), Job.heartbeat_at.is_not(None))
    if waiting is None or waiting > since or (heard is not None and heard > since):
        return "ok"
    return f"no worker has taken up work for {patience.total_seconds():g} seconds"


def _first(session: Session, what: object, where: object) -> datetime | None:
    return session.scalar(select(what).where(where))  # type: ignore[call-overload]  # too many shapes for the stubs
