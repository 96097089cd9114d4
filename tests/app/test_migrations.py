"""The schema's revisions: forward, back, equal to the models, and kind to the rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, insert, inspect, select, update
from sqlalchemy.exc import IntegrityError

from app import migrate
from app.audit import AuditEntry
from app.db import Base, Database
from app.jobs import ledger, moves
from app.models import ApiKey, Dataset, Event, Job, Outbox, Student, Upload, Worker
from app.webhooks import events
from app.webhooks.tables import WebhookEndpoint

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BEFORE_PLANS = "0007"
STATES = ("queued", "running", "succeeded", "failed", "cancelled")
NEW = {
    "queue": "default",
    "priority": 0,
    "strikes": 0,
    "spent_seconds": 0.0,
    "parent_id": None,
    "retry_of": None,
    "max_seconds": None,
    "pause_requested_at": None,
    "checkpoint": None,
    "furthest": None,
    "sweep_id": None,
    "waits_for": None,
    "estimate": None,
    "estimate_error": None,
}
KEPT = {"deleted_at": None, "kept_until": None}


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


def old_job(state: str) -> dict[str, Any]:
    """A row of the first version."""
    started, running, ended = state != "queued", state == "running", state in STATES[2:]
    return {
        "id": f"job_{state}",
        "owner": "ana",
        "kind": "distil",
        "state": state,
        "dataset_id": "ds_1",
        "spec": {"student": "s"},
        "metadata": {"who": "me"},
        "idempotency_key": f"key-{state}",
        "request_sha256": "2" * 64,
        "attempt": int(started),
        "max_attempts": 3,
        "run_after": MOMENT,
        "lease_owner": "w1" if running else None,
        "lease_until": MOMENT + timedelta(seconds=60) if running else None,
        "heartbeat_at": MOMENT + timedelta(seconds=9) if started else None,
        "cancel_requested_at": MOMENT if state == "cancelled" else None,
        "progress": {"step": 3} if running else None,
        "failure": {"code": "dataset"} if state == "failed" else None,
        "created_at": MOMENT,
        "started_at": MOMENT if started else None,
        "ended_at": MOMENT if ended else None,
    }


ROWS: dict[str, list[dict[str, Any]]] = {
    "api_keys": [
        {
            "id": "key_1",
            "owner": "ana",
            "name": "n",
            "sha256": "0" * 64,
            "scopes": ["jobs:read"],
            "created_at": MOMENT,
            "expires_at": MOMENT,
            "revoked_at": None,
        }
    ],
    "datasets": [
        {
            "id": "ds_1",
            "owner": "ana",
            "name": "digits",
            "status": "ready",
            "upload_key": None,
            "upload_bytes": 2**40,
            "upload_sha256": "1" * 64,
            "version": "3" * 64,
            "file_key": "datasets/ds_1",
            "classes": ["a", "b"],
            "splits": {"train": {"a": 1}},
            "findings": [{"code": "x"}],
            "created_at": MOMENT,
            "settled_at": MOMENT,
        }
    ],
    "jobs": [*(old_job(state) for state in STATES), {**old_job("queued"), "id": "job_check"}],
    "events": [
        {"job_id": "job_running", "seq": seq, "at": MOMENT, "type": kind, "data": {"n": seq}}
        for seq, kind in enumerate(["submitted", "started"], 1)
    ],
    "outbox": [
        {"id": f"out_{name}", "topic": "ring", "subject_id": f"job_{name}", "created_at": MOMENT}
        for name in ("queued", "check")
    ],
    "students": [
        {
            "id": "stu_1",
            "owner": "ana",
            "job_id": "job_succeeded",
            "dataset_id": "ds_1",
            "dataset_version": "3" * 64,
            "foundation": "f",
            "architecture": "s",
            "metrics": {"accuracy": 0.9},
            "files": [{"name": "x"}],
            "created_at": MOMENT,
        }
    ],
}
ROWS["jobs"][-1] |= {"kind": "ingest", "idempotency_key": None}


def fill(url: str) -> None:
    """The first version, with rows in every table."""
    migrate.upgrade(url, "0001")
    database, schema = Database(url), MetaData()
    with database.writing.begin() as connection:
        schema.reflect(connection)
        for name, rows in ROWS.items():
            connection.execute(insert(schema.tables[name]), rows)
    database.close()
    assert set(ROWS) == tables(url)


def dump(url: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, as the database has it."""
    database, schema = Database(url), MetaData()
    with database.engine.connect() as connection:
        schema.reflect(connection)
        found = {
            name: [
                dict(row._mapping)
                for row in connection.execute(select(table).order_by(*table.primary_key))
            ]
            for name, table in schema.tables.items()
        }
    database.close()
    return found


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
        Dataset: {"gallery_key": None, "audit": None, **KEPT},
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


def test_the_third_version_adds_uploads_and_changes_nothing_else(any_url: str) -> None:
    fill(any_url)
    migrate.upgrade(any_url, "0002")
    before = dump(any_url)
    migrate.upgrade(any_url, "0003")
    after = dump(any_url)
    assert after.pop("uploads") == []
    before["alembic_version"], after["alembic_version"] = [], []
    assert after == before
    database = Database(any_url)
    with database.write() as session:
        session.add(upload())
    database.close()
    migrate.downgrade(any_url, "0002")
    assert dump(any_url) | {"alembic_version": []} == before


def upload(**changed: Any) -> Upload:
    """A row of the third version."""
    row = {
        "id": "up_1",
        "owner": "ana",
        "name": "digits",
        "user_metadata": "name ZGlnaXRz",
        "length_bytes": 2**40,
        "received_bytes": 2**40,
        "created_at": MOMENT,
        "expires_at": None,
        "dataset_id": "ds_1",
    }
    return Upload(**{**row, **changed})


@pytest.mark.parametrize(
    "wrong",
    [
        {"received_bytes": 2**40 + 1},
        {"received_bytes": -1},
        {"dataset_id": "ds_none"},
        {"owner": None},
    ],
)
def test_the_third_version_refuses_what_cant_be(any_url: str, wrong: dict[str, Any]) -> None:
    fill(any_url)
    migrate.upgrade(any_url, "0003")
    database = Database(any_url)
    with database.write() as session:
        session.add(upload())
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(upload(id="up_2", **wrong))
    database.close()


def test_the_fourth_version_can_be_taken_back(any_url: str) -> None:
    fill(any_url)
    migrate.upgrade(any_url, "0003")
    before = dump(any_url)
    migrate.upgrade(any_url, "0004")
    migrate.downgrade(any_url, "0003")
    assert dump(any_url) == before


def test_the_fifth_version_adds_latencies_and_changes_nothing_else(any_url: str) -> None:
    fill(any_url)
    migrate.upgrade(any_url, "0004")
    before = dump(any_url)
    migrate.upgrade(any_url, "0005")
    after = dump(any_url)
    assert after.pop("latencies") == []
    assert after | {"alembic_version": []} == before | {"alembic_version": []}
    migrate.downgrade(any_url, "0004")
    assert dump(any_url) == before


def test_the_sixth_version_adds_the_audit_log_and_can_be_taken_back(any_url: str) -> None:
    fill(any_url)
    migrate.upgrade(any_url, "0005")
    before = dump(any_url)
    migrate.upgrade(any_url, "0006")
    after = dump(any_url)
    assert after.pop("audit_log") == []
    (key,) = after["api_keys"]
    assert (key.pop("last_used_at"), key.pop("replaced_by")) == (None, None)
    assert after | {"alembic_version": []} == before | {"alembic_version": []}
    database = Database(any_url)
    with database.write() as session:
        session.add(AuditEntry(id="aud_1", at=MOMENT, owner="ana", action="create_job"))
    database.close()
    migrate.downgrade(any_url, "0005")
    assert dump(any_url) == before


def test_the_seventh_version_adds_webhooks_and_forgets_them_again(any_url: str) -> None:
    fill(any_url)
    migrate.upgrade(any_url, "0005")
    before = dump(any_url)
    migrate.upgrade(any_url, "0007")
    after = dump(any_url)
    assert (after["webhook_endpoints"], after["webhook_deliveries"]) == ([], [])
    migrate.downgrade(any_url, "0005")
    assert dump(any_url) == before


@pytest.mark.parametrize("wrong", [{"status": "lost"}, {"endpoint_id": "whe_none"}])
def test_the_seventh_version_refuses_what_cant_be(
    any_database: Database, wrong: dict[str, str]
) -> None:
    with any_database.write() as session:
        made = WebhookEndpoint(
            id="whe_1", owner="ana", url="", description="", enabled=True, secrets=[]
        )
        made.created_at = MOMENT
        session.add(made)
        session.flush()
        session.add(events.delivery(made, "ping", {}, MOMENT))
    with pytest.raises(IntegrityError), any_database.write() as session:
        session.execute(update(events.WebhookDelivery).values(wrong))


def test_the_ninth_version_adds_deletion_and_can_be_taken_back(any_url: str) -> None:
    fill(any_url)
    migrate.upgrade(any_url, "0008")
    before = dump(any_url)
    migrate.upgrade(any_url, "0009")
    database = Database(any_url)
    with database.write() as session:
        for table in (Dataset, Job, Student):
            rows = session.scalars(select(table)).all()
            assert [(row.deleted_at, row.kept_until) for row in rows] == [(None, None)] * len(rows)
        session.execute(update(Dataset).values(deleted_at=MOMENT))  # and freed
    database.close()
    migrate.downgrade(any_url, "0008")
    after = dump(any_url)
    assert {row.pop("status") for row in after["datasets"]} == {"invalid"}
    for row in before["datasets"]:
        del row["status"]
    assert after == before


def test_the_eighth_version_adds_plans_and_can_be_taken_back(any_url: str) -> None:
    fill(any_url)
    migrate.upgrade(any_url, BEFORE_PLANS)
    before = dump(any_url)
    migrate.upgrade(any_url, "0008")
    after = dump(any_url)
    assert (after.pop("throughputs"), after.pop("sweeps")) == ([], [])
    added = ("sweep_id", "waits_for", "estimate", "estimate_error")
    assert all(job.pop(name) is None for job in after["jobs"] for name in added)
    assert all(worker.pop("memory_bytes") is None for worker in after["workers"])
    assert after | {"alembic_version": []} == before | {"alembic_version": []}
    migrate.downgrade(any_url, BEFORE_PLANS)
    assert dump(any_url) == before
