"""A ledger of many jobs, made by the database itself: a million rows in a minute or two."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection, text

from app.db import Database, new_id
from tdmr.config import JobSpec

OWNER = "owner"  # whose the first key is, and half of the jobs
OWNERS = 50
WAITING = 10_000
FIRST_MS = 1_700_000_000_000  # when the oldest was made, in milliseconds since 1970
SPEC = json.dumps(JobSpec(foundation="letters_vit", student="test_resnet").model_dump(mode="json"))
METRICS = json.dumps({"accuracy": 0.91, "interval": [0.9, 0.92]})

# Rows are numbered from the oldest; the last ones wait. Of the others two in 100 failed, two in
# 1,000 were cancelled, and all others have a student.
JOBS = """
INSERT INTO jobs (id, owner, kind, state, dataset_id, spec, metadata, queue, priority, attempt,
    strikes, max_attempts, run_after, spent_seconds, created_at, started_at, ended_at, claimed_at,
    heartbeat_at)
SELECT 'job_' || lpad(to_hex(:first + n), 12, '0') || substr(md5(n::text), 1, 16),
    CASE WHEN n % 2 = 0 THEN :owner ELSE 'owner-' || (n / 2 % :owners) END,
    'distil',
    CASE WHEN n >= :ended THEN 'queued' WHEN n % 1000 IN (7, 8) THEN 'cancelled'
        WHEN n % 100 IN (3, 4) THEN 'failed' ELSE 'succeeded' END,
    :dataset, CAST(:spec AS json), '{}', 'default', 0,
    CASE WHEN n >= :ended THEN 0 ELSE 1 END,
    0, 3, at, 0, at, started, ended, started, ended
FROM (SELECT n, now() - (:total - n) * interval '1 second' AS at,
        CASE WHEN n < :ended THEN now() END AS started, CASE WHEN n < :ended THEN now() END AS ended
    FROM generate_series(0, :total - 1) AS n) AS numbered
"""
EVENTS = """
INSERT INTO events (job_id, seq, at, type, data)
SELECT id, 1, created_at, 'submitted', '{}' FROM jobs WHERE state = 'queued'
"""
STUDENTS = """
INSERT INTO students (id, owner, job_id, dataset_id, dataset_version, foundation, architecture,
    partial, metrics, files, created_at)
SELECT 'stu_' || substr(id, 5) || '01', owner, id, dataset_id, '', 'letters_vit', 'test_resnet',
    false, CAST(:metrics AS json), '[]', created_at
FROM jobs WHERE state = 'succeeded'
"""
DATASET = """
INSERT INTO datasets (id, owner, name, status, upload_bytes, upload_sha256, findings, created_at)
VALUES (:dataset, :owner, 'digits', 'ready', 0, '', '[]', now())
"""


@dataclass(frozen=True)
class Ledger:
    """How many jobs there are, and how many of them wait."""

    total: int
    waiting: int


def fill(database: Database, ledger: Ledger) -> None:
    """Make the rows, and let the planner know of them."""
    dataset = new_id("ds")
    with database.engine.begin() as connection:
        _run(connection, DATASET, dataset=dataset, owner=OWNER)
        _run(
            connection,
            JOBS,
            owner=OWNER,
            owners=OWNERS,
            dataset=dataset,
            spec=SPEC,
            first=FIRST_MS,
            ended=ledger.total - ledger.waiting,
            total=ledger.total,
        )
        _run(connection, EVENTS)
        _run(connection, STUDENTS, metrics=METRICS)
    with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        _run(connection, "VACUUM ANALYZE")


def _run(connection: Connection, statement: str, **values: object) -> None:
    connection.execute(text(statement), values)
