"""PostgreSQL in production: the pool and its end, and migrations beside what runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, MetaData, event, insert, select, text
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from app import db, migrate
from app.cli import cli
from app.db import Database
from app.errors import UnavailableError
from app.main import create_app
from app.settings import Settings
from tests.app.revisions import ROWS, dump, fill
from tests.app.webhooks.nets import nowhere

# What a revision may do while servers of the one before it go on.
KIND = re.compile(
    r"CREATE TABLE|CREATE (?:UNIQUE )?INDEX|INSERT INTO alembic_version|UPDATE alembic_version"
    r"|ALTER TABLE \w+ (?:ADD COLUMN (?:.*DEFAULT|(?!.*NOT NULL))|ADD CONSTRAINT"
    r"|ALTER COLUMN \w+ DROP NOT NULL)"
)
WIDENED = "ALTER TABLE jobs DROP CONSTRAINT ck_jobs_kind"  # put back with one kind more
REVISIONS = sorted(each.name[:4] for each in Path("migrations/versions").glob("0*.py"))
ADDED: dict[str, dict[str, Any]] = {
    "jobs": {"queue": "default", "priority": 0, "strikes": 0, "spent_seconds": 0.0},
    "students": {"partial": False},
}
HELD = "0008"  # the newest that wasn't made by these rules


def test_the_pool_is_as_set_and_postgresql_knows_who_is_connected(
    postgres_copy: str, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"database_pool_size": 1, "database_pool_overflow": 1}
    settings = Settings(
        data_dir=tmp_path,
        database_url=f"{postgres_copy}?options=-csearch_path%3Dpublic",
        database_statement_seconds=0.05,
        **given,
    )
    database = Database.of(settings, "tdmr-test")
    with database.read() as session, database.read() as other:
        told = session.execute(text("SELECT current_setting('application_name')")).scalar_one()
        limit = session.execute(text("SELECT current_setting('statement_timeout')")).scalar_one()
        assert (told, limit) == ("tdmr-test", "50ms")
        assert other.execute(text("SELECT current_setting('search_path')")).scalar() == "public"
        assert database.engine.pool.status().startswith("Pool size: 1")
        with pytest.raises(OperationalError, match="statement timeout"):
            session.execute(text("SELECT pg_sleep(60)"))
    database.close()


def test_a_lock_whose_holder_says_nothing_more_is_let_go_of(
    postgres_copy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a host which is cut off within a transaction."""
    monkeypatch.setattr(db, "IDLE_SECONDS", 1)
    silent, other = Database(postgres_copy), Database(postgres_copy)
    lock = text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
    with silent.engine.connect() as holder, other.engine.begin() as waiting:
        holder.execute(lock)
        waiting.execute(text("SET LOCAL lock_timeout = '60s'"))
        waiting.execute(lock)
        holder.invalidate()
    silent.close()
    other.close()


def test_a_pool_that_is_used_up_is_no_error_of_ours(postgres_copy: str, tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        database_url=postgres_copy,
        database_pool_size=1,
        database_pool_overflow=0,
        database_pool_seconds=0.05,
    )
    app = create_app(settings, nowhere())
    answers = []
    with TestClient(app, headers={"Authorization": "Bearer tdmr_x"}) as client:
        with app.state.core.database.read() as session:
            session.execute(text("SELECT 1"))
            answers += [client.get("/v1/datasets"), client.get("/v1/jobs/job_1")]
        for answer in answers:
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert answer.json()["detail"] == "Every connection to the database is in use."
        assert client.get("/v1/datasets").status_code == 401  # once it's free


@pytest.mark.parametrize(
    "wrong",
    [
        "ALTER TABLE jobs DROP COLUMN spec",
        "ALTER TABLE jobs ADD COLUMN n INTEGER NOT NULL",
        "ALTER TABLE jobs RENAME COLUMN spec TO plan",
        "ALTER TABLE jobs ALTER COLUMN spec SET NOT NULL",
        "DROP TABLE jobs",
        "UPDATE jobs SET queue = 'default'",
    ],
)
def test_what_a_migration_may_not_do_would_be_noticed(wrong: str) -> None:
    assert not KIND.match(wrong)
    assert KIND.match("ALTER TABLE jobs ADD COLUMN n INTEGER DEFAULT '0' NOT NULL") is not None


@pytest.mark.parametrize("newer", [each for each in REVISIONS if each > HELD])
def test_what_ran_before_a_migration_goes_on_after_it(postgres_schema: str, newer: str) -> None:
    """The older version's statements are played on the newer schema: all it reads and writes."""
    older = f"{int(newer) - 1:04}"
    migrate.upgrade(postgres_schema, older)
    database, schema, done = Database(postgres_schema), MetaData(), []
    schema.reflect(database.engine)

    def note(*arguments: Any) -> None:
        done.append(" ".join(arguments[2].split()))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        migrate.upgrade(postgres_schema, newer)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    changes = [each for each in done if re.match("CREATE|ALTER|DROP|INSERT|UPDATE|DELETE", each)]
    assert [each for each in changes if not KIND.match(each) and each != WIDENED] == []
    assert len(changes) > 1
    with database.writing.begin() as connection:
        for name, rows in ROWS.items():
            rows = [{**row, **ADDED.get(name, {})} for row in rows]
            connection.execute(insert(schema.tables[name]), rows)
        for table in schema.tables.values():
            assert connection.execute(select(table)).all() or table.name not in ROWS
    database.close()


def test_a_migration_that_finds_a_table_held_gives_up_and_changes_nothing(
    postgres_schema: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    postgres_schema += "%20-cstatement_timeout%3D30000"  # nothing waits for ever
    fill(postgres_schema)
    before = dump(postgres_schema)
    database = Database(postgres_schema)
    with database.read() as session:
        session.execute(text("SELECT count(*) FROM jobs"))  # as a long report would
        with pytest.raises(UnavailableError, match=r"waited 0\.05 seconds"):
            migrate.upgrade(postgres_schema, lock_seconds=0.05)
        monkeypatch.setenv("TDMR_DATABASE_URL", postgres_schema)
        command = ["migrate", "--lock-seconds", "0.05", "--data", str(tmp_path)]
        told = CliRunner().invoke(cli, command)
        assert (told.exit_code, "changed nothing" in told.output) == (1, True)
        assert dump(postgres_schema) == before
    done = CliRunner().invoke(cli, command)
    assert (done.exit_code, done.output) == (0, "The database has the newest schema.\n")
    database.close()
