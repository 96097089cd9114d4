"""Retention: nothing goes by itself until an age is set, and then only what is older."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from app.audit import AuditEntry
from app.db import Database, new_id, now
from app.jobs import ledger
from app.keeping import freeing, retention
from app.models import Dataset, Event, Job, Model
from app.settings import Settings
from app.storage import LocalStorage
from tests.app.jobs import steps
from tests.app.keeping.test_freeing import promised, stored, stored_checkpoint
from tests.support import make_dataset, make_model

DAY = 86_400.0


def apply(database: Database, storage: LocalStorage, settings: Settings, **ages: float) -> None:
    retention.apply(database, storage, settings.model_copy(update=ages))


def count(database: Database, table: Any) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def ended(database: Database, storage: LocalStorage, days: float) -> str:
    """A job that failed behind a checkpoint, so many days ago."""
    claim = steps.claimed(database)
    steps.save(database, claim, stored_checkpoint(storage, claim.job_id))
    steps.do(database, ledger.fail, claim, steps.FINAL)
    with database.write() as session:
        moment = now(session) - timedelta(days=days)
        session.execute(update(Job).where(Job.id == claim.job_id).values(ended_at=moment))
    return claim.job_id


def note(database: Database, days: float) -> None:
    with database.write() as session:
        moment = now(session) - timedelta(days=days)
        session.add(AuditEntry(id=new_id("aud"), at=moment, owner="ana", action="create_job"))


def test_without_settings_everything_stays(
    any_database: Database, storage: LocalStorage, settings: Settings
) -> None:
    ended(any_database, storage, 10_000)
    note(any_database, 10_000)
    make_dataset(any_database, status="invalid")
    make_model(any_database, status="invalid")
    before = steps.everything(any_database), stored(storage)
    apply(any_database, storage, settings)
    assert (steps.everything(any_database), stored(storage)) == before
    assert count(any_database, AuditEntry) == 1


def test_logs_of_jobs_that_ended_long_ago_go(
    any_database: Database, storage: LocalStorage, settings: Settings
) -> None:
    old, young = ended(any_database, storage, 3), ended(any_database, storage, 1)
    (going_on,) = steps.submit(any_database)
    apply(any_database, storage, settings, retain_events_seconds=2 * DAY)
    assert steps.log(any_database, old) == []
    assert len(steps.log(any_database, young)) == 4
    assert len(steps.log(any_database, going_on)) == 1
    assert stored(storage) == promised(any_database)
    assert len(stored(storage)) == 2


def test_checkpoints_of_jobs_that_ended_long_ago_go_with_their_bytes(
    any_database: Database, storage: LocalStorage, settings: Settings
) -> None:
    old, young = ended(any_database, storage, 3), ended(any_database, storage, 1)
    apply(any_database, storage, settings, retain_checkpoints_seconds=2 * DAY)
    assert steps.job(any_database, old).checkpoint is None
    assert steps.job(any_database, young).checkpoint is not None
    assert stored(storage) == promised(any_database)
    assert [young in key for key in stored(storage)] == [True]
    assert len(steps.log(any_database, old)) == 4


@pytest.mark.parametrize("setting", ["retain_events_seconds", "retain_checkpoints_seconds"])
def test_a_job_whose_student_is_still_being_rescued_keeps_both(
    any_database: Database, storage: LocalStorage, settings: Settings, setting: str
) -> None:
    claim = steps.claimed(any_database)
    steps.save(any_database, claim, steps.student())
    with any_database.write() as session:
        ledger.request_cancel(session, session.get_one(Job, claim.job_id))
    steps.do(any_database, ledger.cancelled, claim)
    apply(any_database, storage, settings, **{setting: 0.0})
    assert steps.job(any_database, claim.job_id).checkpoint is not None
    assert len(steps.log(any_database, claim.job_id)) == 5
    package = steps.claim(any_database)
    steps.do(any_database, ledger.succeed, package, {"student_id": "stu_1", "partial": True})
    apply(any_database, storage, settings, **{setting: 0.0})
    kept = steps.job(any_database, claim.job_id).checkpoint, steps.log(any_database, claim.job_id)
    assert (kept[0] is None) is (setting == "retain_checkpoints_seconds")
    assert (kept[1] == []) is (setting == "retain_events_seconds")


@pytest.mark.parametrize(
    ("table", "make"), [(Dataset, make_dataset), (Model, make_model)], ids=["datasets", "models"]
)
def test_what_didnt_pass_goes_for_good(
    any_database: Database,
    storage: LocalStorage,
    settings: Settings,
    table: type[Dataset] | type[Model],
    make: Callable[..., str],
) -> None:
    old, young = (make(any_database, status="invalid") for _ in range(2))
    good = make(any_database)
    with any_database.write() as session:
        for id_, days in ((old, 3), (young, 1), (good, 3)):
            session.get_one(table, id_).settled_at = now(session) - timedelta(days=days)
    apply(any_database, storage, settings, retain_invalid_seconds=2 * DAY)
    assert freeing.free(any_database, storage) == 1
    with any_database.read() as session:
        freed = session.scalars(select(table.id).where(table.name == "")).all()
        left = session.scalars(select(table.id).where(table.deleted_at.is_(None))).all()
    assert (list(freed), set(left)) == ([old], {young, good})


def test_the_audit_log_is_cut_in_batches(
    any_database: Database,
    storage: LocalStorage,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "AUDIT_BATCH", 2)
    for days in (9, 8, 7, 6, 5, 1, 0.5):
        note(any_database, days)
    apply(any_database, storage, settings, retain_audit_seconds=2 * DAY)
    assert count(any_database, AuditEntry) == 2
    apply(any_database, storage, settings, retain_audit_seconds=0.6 * DAY)
    assert count(any_database, AuditEntry) == 1


def test_logs_go_in_batches_and_none_is_cut(
    any_database: Database,
    storage: LocalStorage,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    for _ in range(5):
        ended(any_database, storage, 3)
    apply(any_database, storage, settings, retain_events_seconds=2 * DAY)
    assert count(any_database, Event) == 0


def test_a_checkpoint_stays_while_a_retry_would_go_on_from_it(
    any_database: Database, storage: LocalStorage, settings: Settings
) -> None:
    old = ended(any_database, storage, 3)
    row = steps.job(any_database, old)
    given = {"dataset_id": row.dataset_id, "checkpoint": row.checkpoint, "retry_of": old}
    (heir,) = steps.submit(any_database, **given)
    before = stored(storage)
    apply(any_database, storage, settings, retain_checkpoints_seconds=2 * DAY)
    assert stored(storage) == promised(any_database) == before
    steps.ask(any_database, ledger.request_cancel, heir)
    apply(any_database, storage, settings, retain_checkpoints_seconds=0.0)
    apply(any_database, storage, settings, retain_checkpoints_seconds=0.0)
    assert stored(storage) == promised(any_database) == set()
