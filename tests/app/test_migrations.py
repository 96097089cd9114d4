"""The schema's revisions: forward, back, and equal to the models."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from app import migrate
from app.db import Base, Database


def tables(url: str) -> set[str]:
    database = Database(url)
    names = set(inspect(database.engine).get_table_names())
    database.close()
    return names - {"alembic_version"}


def test_upgrade_makes_what_the_models_say(any_database: Database) -> None:
    with any_database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_downgrade_leaves_nothing_and_upgrade_works_again(any_url: str) -> None:
    migrate.upgrade(any_url)
    migrate.downgrade(any_url, "base")
    assert tables(any_url) == set()
    migrate.upgrade(any_url)
    assert tables(any_url) == set(Base.metadata.tables)


def test_servers_that_start_together_migrate_once(any_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: migrate.upgrade(any_url), range(4)))
    assert tables(any_url) == set(Base.metadata.tables)
