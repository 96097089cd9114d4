"""Uploads in one request: refused before the body where they would be behind it, or noted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.api import body, idempotency
from app.api.core import Core
from app.jobs.idempotency import Idempotency, is_known
from app.settings import Settings
from app.storage import Stored

Made = TypeVar("Made")
Admit = Callable[[Session, str, int, Settings], None]  # raises QuotaExceededError


async def check_room(
    request: Request, core: Core, owner: str, key: str | None, admit: Admit
) -> None:
    """Refuse a body before it comes when there is no room for it; a repeat needs none."""
    declared = body.content_length(request) or 0

    def check() -> None:
        with core.database.read() as session:
            if key is None or not is_known(session, owner, key):
                admit(session, owner, declared, core.settings)

    await run_in_threadpool(check)


async def note(
    response: Response,
    core: Core,
    owner: str,
    asked: Idempotency,
    upload: Stored,
    make: Callable[[Session], Made],
    find: Callable[[Session, Any], Made],
) -> Made:
    """Note a stored upload, or find what an equal request made of it: the response says which.

    It is removed again when it can't be noted, or was noted before.
    """

    def record() -> tuple[Made, bool]:
        kept = False
        try:
            made, replayed = idempotency.once(core, owner, asked, make, find)
            kept = not replayed
        finally:
            if not kept:
                core.storage.delete(upload.key)
        return made, replayed

    made, replayed = await run_in_threadpool(record)
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return made
