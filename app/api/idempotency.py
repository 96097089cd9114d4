"""Idempotency-Key: what is asked for twice is made once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Header
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import audit
from app.api.core import Core
from app.jobs.idempotency import Idempotency, earlier
from app.models import Job

Made = TypeVar("Made")

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="Of your choice, new for each request; a repeat gets the first one's result.",
    ),
]


def asked(key: str | None, *parts: str) -> Idempotency:
    """The request's key, and the hash of everything it asks for."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return Idempotency(key, digest.hexdigest())


def once(
    core: Core,
    owner: str,
    idempotency: Idempotency,
    make: Callable[[Session], Made],
    find: Callable[[Session, Job], Made],
) -> tuple[Made, bool]:
    """Make something, or find what an equal request made; True when it was found.

    Two equal requests at the same moment are decided by the database: the later one finds.
    """
    while True:
        try:
            with core.database.write() as session:
                job = earlier(session, owner, idempotency)
                if job is not None:
                    audit.nothing(session)  # a repeat changes nothing
                result = make(session) if job is None else find(session, job)
        except IntegrityError:
            with core.database.read() as session:
                if earlier(session, owner, idempotency) is None:
                    raise
        else:
            core.relay.nudge()
            return result, job is not None
