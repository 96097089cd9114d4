"""What is told: each end once, in the transaction that makes it, to those who want it."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app import migrate
from app.api.core import Core
from app.db import Database, now
from app.jobs import ledger
from app.jobs.claims import LeaseLostError
from app.webhooks import events, service
from tests.app.jobs import steps
from tests.app.service import Service
from tests.app.webhooks import owners
from tests.support import make_dataset, wait_until


def told(database: Database) -> list[tuple[str, dict[str, Any]]]:
    """Type and data of every message, the oldest first."""
    rows = owners.every(database)
    for row in rows:
        body = json.loads(row.body)
        assert set(body) == {"type", "timestamp", "data"}
        assert body["type"] == row.event_type
        assert body["timestamp"].endswith("Z")
    return [(row.event_type, json.loads(row.body)["data"]) for row in rows]


def test_the_way_from_an_upload_to_a_student_is_told(service: Service, core: Core) -> None:
    service.endpoint()
    student = service.student()
    ids = {"job_id": student["job_id"], "dataset_id": student["dataset_id"]}
    assert sorted(told(core.database), key=str) == [
        ("dataset.ready", {"dataset_id": student["dataset_id"]}),
        ("job.succeeded", ids),
        ("student.created", {"student_id": student["id"], "job_id": student["job_id"]}),
    ]


def test_a_bad_upload_is_told(service: Service, core: Core) -> None:
    service.endpoint()
    made = service.upload(b"PK\x05\x06" + bytes(18))
    service.settle()
    assert told(core.database) == [("dataset.invalid", {"dataset_id": made["id"]})]


def test_a_pause_and_a_cancel_are_told(service: Service, core: Core) -> None:
    job = service.job()
    service.endpoint()
    for act in ("pause", "resume", "pause", "cancel"):
        assert service.client.post(f"/v1/jobs/{job['id']}/{act}").status_code == 202
    assert [type_ for type_, _ in told(core.database)] == [
        "job.paused",
        "job.paused",
        "job.cancelled",
    ]


@pytest.mark.parametrize("failure", [steps.FINAL, steps.BROKEN])
def test_a_failure_is_told_once_it_is_final(database: Database, failure: Any) -> None:
    owners.endpoint(database)
    taken = steps.claimed(database)
    steps.do(database, ledger.fail, taken, steps.PASSING)
    assert told(database) == []
    steps.make_due(database, taken.job_id)
    again = steps.claim(database)
    steps.do(database, ledger.fail, again, failure)
    ids = {"job_id": taken.job_id, "dataset_id": taken.dataset_id}
    assert told(database) == [("job.failed", ids)]


@pytest.mark.parametrize("kind", ["ingest", "package"])
def test_the_services_own_jobs_arent_told_of(database: Database, kind: str) -> None:
    owners.endpoint(database)
    taken = steps.claimed(database, kind=kind)
    steps.do(database, ledger.fail, taken, steps.FINAL)
    assert told(database) == []


def test_a_job_whose_worker_went_silent_too_often_is_told(database: Database) -> None:
    owners.endpoint(database)
    steps.submit(database, max_attempts=1)
    steps.die(database, steps.claim(database))
    assert [type_ for type_, _ in told(database)] == ["job.failed"]


def test_what_is_rolled_back_was_never_told(database: Database) -> None:
    owners.endpoint(database)
    taken = steps.claimed(database)

    def fail_and_break() -> None:
        with database.write() as session:
            ledger.fail(session, taken, steps.FINAL)
            assert session.query(events.WebhookDelivery).count() == 1
            raise RuntimeError("the process dies here")

    with pytest.raises(RuntimeError, match="dies here"):
        fail_and_break()
    assert told(database) == []
    steps.do(database, ledger.fail, taken, steps.FINAL)
    assert len(told(database)) == 1


def test_a_stale_attempt_tells_nothing(database: Database) -> None:
    owners.endpoint(database)
    stale = steps.claimed(database)
    steps.die(database, stale)
    with pytest.raises(LeaseLostError):
        steps.do(database, ledger.fail, stale, steps.FINAL)
    assert told(database) == []


def test_those_are_told_who_want_to_be(any_database: Database) -> None:
    every = owners.endpoint(any_database)
    picky = owners.endpoint(any_database, event_types=["dataset.ready", "job.failed"])
    owners.endpoint(any_database, event_types=["dataset.ready"])
    owners.endpoint(any_database, owner="bob")
    off = owners.endpoint(any_database)
    owners.write(any_database, off.id, enabled=False)
    dataset_id = make_dataset(any_database)
    with any_database.write() as session:
        events.tell(session, "ana", "job.failed", job_id="job_1", dataset_id=dataset_id)
    rows = owners.every(any_database)
    assert sorted(row.endpoint_id for row in rows) == sorted([every.id, picky.id])
    assert len({row.id for row in rows}) == 2
    assert len({row.body for row in rows}) == 1


def test_an_endpoint_that_is_deleted_meanwhile_breaks_nothing(
    postgres_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.upgrade(postgres_schema)
    database = Database(postgres_schema)
    made, deleting = owners.endpoint(database), ThreadPoolExecutor(1)

    def delete() -> None:
        with database.write() as session:
            service.delete(session, "ana", made.id)

    def waits() -> bool:
        with database.read() as session:
            return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    def meanwhile(session: Session) -> datetime:  # the endpoints are read, nothing is written
        futures.append(deleting.submit(delete))
        wait_until(lambda: futures[0].done() or waits())
        return now(session)

    futures: list[Future[None]] = []
    monkeypatch.setattr(events, "now", meanwhile)
    with database.write() as session:
        events.tell(session, "ana", "job.failed", job_id="job_1")
    futures[0].result()
    deleting.shutdown()
    assert owners.every(database) == []
    database.close()
