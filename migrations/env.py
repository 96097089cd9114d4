"""What Alembic runs: the models' tables, on the connection that `app.migrate` opened."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection, text

import app.audit
import app.models
import app.plans.tables
import app.webhooks.tables  # noqa: F401 - all declare tables
from app.db import Base, UtcDateTime
from app.migrate import LOCK_SECONDS, connecting
from app.settings import Settings


def render(type_: str, item: Any, _context: Any) -> str | bool:
    """Write our own column type in a new revision as the plain one that it stores."""
    if type_ == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def run(connection: Connection) -> None:
    """Run the revisions in the connection's transaction.

    A revision that waits for a table makes everybody wait who comes after it: so not for long.
    """
    if connection.dialect.name == "postgresql":
        seconds = context.config.attributes.get("lock_seconds", LOCK_SECONDS)
        connection.execute(text(f"SET LOCAL lock_timeout = {seconds * 1000:.0f}"))
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=render,
    )
    context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:  # the `alembic` command, in a checkout
    with connecting(Settings().url) as opened:
        run(opened)
