"""The schema's revisions: forward, back, equal to the models, and kind to the rows."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, update
from sqlalchemy.exc import IntegrityError

import migrations
from app import migrate
from app.db import Base, Database
from app.jobs import ledger, moves
from app.models import ApiKey, Dataset, Event, Job, Outbox, Student, Worker
from tests.app.revisions import MOMENT, ROWS, dump, fill, tables

NEW = {
    "queue": "default",
    "priority": 0,
    "devices": 1,
    "strikes": 0,
    "spent_seconds": 0.0,
    "parent_id": None,
    "retry_of": None,
    "max_seconds": None,
    "pause_requested_at": None,
    "checkpoint": None,
    "furthest": None,
    "model_id": None,
    "sweep_id": None,
    "waits_for": None,
    "estimate": None,
    "estimate_error": None,
    "request_id": None,
    "traceparent": None,
}
KEPT = {"deleted_at": None, "kept_until": None}


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


def test_the_newest_revision_is_the_head_of_them_all(any_url: str) -> None:
    (folder,) = migrations.__path__
    assert ScriptDirectory(folder).get_heads() == [migrate.newest()]
    assert migrate.current(any_url) is None
    migrate.upgrade(any_url, "0012")
    assert migrate.current(any_url) == "0012"
    migrate.upgrade(any_url)
    assert migrate.current(any_url) == migrate.newest()


def test_a_schema_that_is_the_newest_needs_no_alembic(any_url: str) -> None:
    migrate.upgrade(any_url)
    script = (
        "import sys; from app import migrate; migrate.upgrade(sys.argv[1]); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, any_url], check=True, capture_output=True, text=True
    )
    assert {"sqlalchemy", "alembic"} & set(done.stdout.split()) == {"sqlalchemy"}


def test_servers_that_start_together_migrate_once(any_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: migrate.upgrade(any_url), range(4)))
    assert tables(any_url) == set(Base.metadata.tables)


@pytest.fixture
def upgraded(any_url: str) -> Any:
    """A database that was of the first version."""
    fill(any_url)
    migrate.upgrade(any_url, "0002")
    database = Database(any_url)
    yield database
    database.close()


@pytest.fixture
def newest(any_url: str) -> Any:
    """A database that was of the first version, and is as the models are."""
    fill(any_url)
    migrate.upgrade(any_url)
    database = Database(any_url)
    yield database
    database.close()


def told(row: Any) -> dict[str, Any]:
    """A row by the names of its columns."""
    names = {key: column.columns[0].name for key, column in inspect(type(row)).column_attrs.items()}
    return {name: getattr(row, key) for key, name in names.items()}


def test_the_newest_version_keeps_every_row_and_adds_to_it(newest: Database) -> None:
    added: dict[type[Base], dict[str, Any]] = {
        ApiKey: {"last_used_at": None, "replaced_by": None},
        Dataset: {"gallery_key": None, "audit": None, "file_sha256": None, **KEPT},
        Event: {},
        Job: {**NEW, **KEPT},
        Student: {"partial": False, **KEPT},
    }
    with newest.read() as session:
        for table, more in added.items():
            found = session.scalars(select(table).order_by(*inspect(table).primary_key)).all()
            rows = sorted(ROWS[table.__tablename__], key=lambda row: str(list(row.values())[:2]))
            for row, old in zip(found, rows, strict=True):
                now = told(row)
                now.pop("claimed_at", None)
                assert now == {**old, **more}
        assert session.scalars(select(Worker)).all() == []


def test_what_ran_when_the_second_version_came_can_be_accounted_for(newest: Database) -> None:
    with newest.write() as session:
        jobs = {job.id: job for job in session.scalars(select(Job))}
        running = jobs.pop("job_running")
        assert running.claimed_at == running.heartbeat_at == MOMENT + timedelta(seconds=9)
        assert {job.claimed_at for job in jobs.values()} == {None}
        assert {moves.spent(job) for job in (running, *jobs.values())} == {0.0}
        (swept,) = ledger.sweep(session)
        assert (swept.job_id, swept.state) == ("job_running", "queued")


def test_bells_that_were_owed_ring_where_the_second_version_listens(upgraded: Database) -> None:
    with upgraded.read() as session:
        rows = session.execute(select(Outbox.subject_id, Outbox.topic).order_by(Outbox.id))
        assert [tuple(row) for row in rows] == [
            ("job_check", "tdmr.default.ingest"),
            ("job_queued", "tdmr.default.distil"),
        ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "lost"},
        {"kind": "magic"},
        {"parent_id": "job_none"},
        {"retry_of": "job_none"},
        {"dataset_id": "ds_none"},
        {"idempotency_key": "key-failed"},
        {"queue": None},
        {"strikes": None},
    ],
)
def test_the_second_version_refuses_what_cant_be(upgraded: Database, wrong: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), upgraded.write() as session:
        session.execute(update(Job).where(Job.id == "job_queued").values(wrong))


@pytest.mark.parametrize("state", ["pausing", "paused", "packaging"])
def test_the_second_version_knows_the_new_states(upgraded: Database, state: str) -> None:
    new = {"state": state, "kind": "package", "parent_id": "job_failed"}
    with upgraded.write() as session:
        session.execute(update(Job).where(Job.id == "job_queued").values(new))
    with pytest.raises(IntegrityError), upgraded.write() as session:
        session.execute(update(Job).where(Job.id == "job_check").values(parent_id="job_failed"))


def test_there_and_back_again_every_row_is_as_it_was(any_url: str) -> None:
    fill(any_url)
    before = dump(any_url)
    migrate.upgrade(any_url, "0002")
    migrate.downgrade(any_url, "0001")
    assert dump(any_url) == before


@pytest.mark.parametrize("new", [{"state": "paused"}, {"kind": "package"}])
def test_there_is_no_way_back_from_what_the_first_version_cant_say(
    upgraded: Database, any_url: str, new: dict[str, Any]
) -> None:
    with upgraded.write() as session:
        session.execute(update(Job).where(Job.id == "job_queued").values(new))
    upgraded.close()
    before = dump(any_url)
    with pytest.raises(IntegrityError):
        migrate.downgrade(any_url, "0001")
    assert dump(any_url) == before
