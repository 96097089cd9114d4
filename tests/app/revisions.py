"""A database of the first version with rows in every table, and what is in one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import MetaData, insert, inspect, select

from app import migrate
from app.db import Database

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VERSION = "alembic_version"
Rows = dict[str, list[dict[str, Any]]]  # by table
STATES = ("queued", "running", "succeeded", "failed", "cancelled")


def tables(url: str) -> set[str]:
    database = Database(url)
    names = set(inspect(database.engine).get_table_names())
    database.close()
    return names - {VERSION}


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


def dump(url: str) -> Rows:
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


@contextmanager
def revised(url: str, at: str, by: str) -> Iterator[tuple[Rows, Rows]]:
    """Every row before and behind the revision `by`. Taken back, it leaves what there was."""
    fill(url)
    migrate.upgrade(url, at)
    before = dump(url)
    migrate.upgrade(url, by)
    yield before | {VERSION: []}, dump(url) | {VERSION: []}
    migrate.downgrade(url, at)
    assert dump(url) == before
