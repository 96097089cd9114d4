"""The revisions from the third on: each adds its own, keeps the rest, and can be taken back."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Insert, delete, insert, update
from sqlalchemy.exc import IntegrityError

from app import migrate
from app.audit import AuditEntry
from app.db import Database
from app.jobs import moves
from app.models import Dataset, Job, Model, Upload
from app.webhooks import events
from app.webhooks.tables import WebhookEndpoint
from tests.app.revisions import MOMENT, dump, fill, revised

BEFORE_PLANS = "0007"


def test_the_third_version_adds_uploads_and_changes_nothing_else(any_url: str) -> None:
    with revised(any_url, "0002", "0003") as (before, after):
        assert after.pop("uploads") == []
        assert after == before
        database = Database(any_url)
        with database.write() as session:
            session.execute(upload())
        database.close()


def upload(**changed: Any) -> Insert:
    """A row of the third version, without what later ones add."""
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
    return insert(Upload).values(**{**row, **changed})


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
        session.execute(upload())
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(upload(id="up_2", **wrong))
    database.close()


def test_the_fourth_version_can_be_taken_back(any_url: str) -> None:
    with revised(any_url, "0003", "0004"):
        pass


def test_the_fifth_version_adds_latencies_and_changes_nothing_else(any_url: str) -> None:
    with revised(any_url, "0004", "0005") as (before, after):
        assert after.pop("latencies") == []
        assert after == before


def test_the_sixth_version_adds_the_audit_log_and_can_be_taken_back(any_url: str) -> None:
    with revised(any_url, "0005", "0006") as (before, after):
        assert after.pop("audit_log") == []
        (key,) = after["api_keys"]
        assert (key.pop("last_used_at"), key.pop("replaced_by")) == (None, None)
        assert after == before
        database = Database(any_url)
        with database.write() as session:
            session.add(AuditEntry(id="aud_1", at=MOMENT, owner="ana", action="create_job"))
        database.close()


def test_the_seventh_version_adds_webhooks_and_forgets_them_again(any_url: str) -> None:
    with revised(any_url, "0005", "0007") as (_, after):
        assert (after["webhook_endpoints"], after["webhook_deliveries"]) == ([], [])


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


def test_the_eighth_version_adds_plans_and_can_be_taken_back(any_url: str) -> None:
    with revised(any_url, BEFORE_PLANS, "0008") as (before, after):
        assert (after.pop("throughputs"), after.pop("sweeps")) == ([], [])
        added = ("sweep_id", "waits_for", "estimate", "estimate_error")
        assert all(job.pop(name) is None for job in after["jobs"] for name in added)
        assert all(worker.pop("memory_bytes") is None for worker in after["workers"])
        assert after == before


def test_the_ninth_version_adds_deletion_and_can_be_taken_back(any_url: str) -> None:
    fill(any_url)
    migrate.upgrade(any_url, "0008")
    before = dump(any_url)
    migrate.upgrade(any_url, "0009")
    for table in ("datasets", "jobs", "students"):
        assert {(row["deleted_at"], row["kept_until"]) for row in dump(any_url)[table]} == {
            (None, None)
        }
    database = Database(any_url)
    with database.write() as session:
        session.execute(update(Dataset).values(deleted_at=MOMENT))  # and freed
    database.close()
    migrate.downgrade(any_url, "0008")
    after = dump(any_url)
    assert {row.pop("status") for row in after["datasets"]} == {"invalid"}
    for row in before["datasets"]:
        del row["status"]
    assert after == before


def test_the_tenth_version_adds_keys_of_uploads_and_can_be_taken_back(any_url: str) -> None:
    fill(any_url)
    migrate.upgrade(any_url, "0009")
    database = Database(any_url)
    with database.write() as session:
        session.execute(upload())
        session.execute(upload(id="up_2"))
    before = dump(any_url)
    migrate.upgrade(any_url, "0010")
    key = {"idempotency_key": "k", "request_sha256": "4" * 64}
    with database.write() as session:  # each owner has keys of their own, and none is no key
        session.execute(upload(id="up_3", **key))
        session.execute(upload(id="up_4", **key, owner="bob"))
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(upload(id="up_5", **key))
    with database.write() as session:
        session.execute(delete(Upload).where(Upload.idempotency_key == "k"))
    database.close()
    migrate.downgrade(any_url, "0009")
    assert dump(any_url) == before


def test_the_eleventh_version_adds_own_foundations_and_forgets_them_again(any_url: str) -> None:
    fill(any_url)
    migrate.upgrade(any_url, "0010")
    before = dump(any_url)
    migrate.upgrade(any_url, "0011")
    after = dump(any_url)
    assert after.pop("models") == []
    assert all(job.pop("model_id") is None for job in after["jobs"])
    assert after | {"alembic_version": []} == before | {"alembic_version": []}
    migrate.upgrade(any_url)  # the ledger writes what the models have now
    database = Database(any_url)
    with database.write() as session:
        session.add(model())
        session.flush()
        check = moves.submit(session, **OF_A_MODEL, dataset_id=None)
        named = moves.submit(session, **{**OF_A_MODEL, "kind": "distil"}, dataset_id="ds_1")
    database.close()
    migrate.downgrade(any_url, "0010")
    after = dump(any_url)
    jobs = [job for job in after["jobs"] if job["id"] != named.id]
    assert jobs == before["jobs"]
    assert len(after["jobs"]) == len(jobs) + 1
    assert {row["job_id"] for row in after["events"]} == {"job_running", named.id}
    assert check.id not in str(after)


OF_A_MODEL: dict[str, Any] = {
    "owner": "ana",
    "kind": "model",
    "model_id": "mod_1",
    "spec": {},
    "max_attempts": 1,
    "ring": True,
}


def model() -> Model:
    """A row of the eleventh version."""
    return Model(
        id="mod_1",
        owner="ana",
        name="ours",
        architecture="test_vit",
        status="processing",
        bytes=2**40,
        sha256="4" * 64,
        findings=[],
        created_at=MOMENT,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "distil"},  # without a dataset
        {"kind": "magic"},
        {"model_id": "mod_none"},
        {"dataset_id": "ds_none"},
    ],
)
def test_the_eleventh_version_refuses_what_cant_be(
    any_database: Database, wrong: dict[str, str]
) -> None:
    with any_database.write() as session:
        session.add(model())
        session.flush()
        moves.submit(session, **OF_A_MODEL, dataset_id=None)
    with pytest.raises(IntegrityError), any_database.write() as session:
        session.execute(update(Job).values(wrong))


def test_the_thirteenth_version_adds_whose_request_a_job_is_and_forgets_it_again(
    any_url: str,
) -> None:
    with revised(any_url, "0012", "0013") as (before, after):
        added = {(job.pop("request_id"), job.pop("traceparent")) for job in after["jobs"]}
        assert added == {(None, None)}
        assert after == before


def test_the_fourteenth_version_adds_indexes_alone(any_url: str) -> None:
    with revised(any_url, "0013", "0014") as (before, after):
        assert after == before


def test_the_fifteenth_version_gives_all_that_was_there_one_device(any_url: str) -> None:
    with revised(any_url, "0014", "0015") as (before, after):
        assert {job.pop("devices") for job in after["jobs"]} == {1}
        assert {worker.pop("devices") for worker in after["workers"]} <= {1}  # there may be none
        assert after == before


def test_the_sixteenth_version_leaves_uncounted_what_was_there(any_url: str) -> None:
    with revised(any_url, "0015", "0016") as (before, after):
        assert {dataset.pop("file_sha256") for dataset in after["datasets"]} == {None}
        assert after == before
