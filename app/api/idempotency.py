"""Idempotency-Key: what is asked for twice is made once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Header
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import audit
from app.api.core import Core
from app.jobs.idempotency import Idempotency, earlier

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
    find: Callable[[Session, Any], Made],
    look: Callable[[Session, str, Idempotency], Any] = earlier,
) -> tuple[Made, bool]:
    """Make something, or find what an equal request made; True when it was found.

    `look` gives the row that an equal request made, of the jobs unless it's another table's.

    Two equal requests at the same moment are decided by the database: the later one finds.
    """
    while True:
        try:
            with core.database.write() as session:
                row = look(session, owner, idempotency)
                if row is not None:
                    audit.nothing(session)  # a repeat changes nothing
                result = make(session) if row is None else find(session, row)
        except IntegrityError:
            with core.database.read() as session:
                if look(session, owner, idempotency) is None:
                    raise
        else:
            core.relay.nudge()
            return result, row is not None
