"""Sessions, and the one clock that counts."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import StatementError
from structlog.testing import capture_logs

from app.db import Database, after_commit, new_id, now
from app.models import Dataset
from tests.support import make_dataset


def test_times_come_back_aware_and_the_same(any_database: Database) -> None:
    dataset_id = make_dataset(any_database)
    moment = datetime(2026, 3, 29, 3, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    with any_database.write() as session:
        session.get_one(Dataset, dataset_id).settled_at = moment
    with any_database.read() as session:
        found = session.get_one(Dataset, dataset_id).settled_at
        assert found == moment
        assert found.tzinfo is UTC
        assert abs(now(session) - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    moment = datetime(2026, 1, 1)  # noqa: DTZ001 - the mistake under test
    with database.write() as session, pytest.raises(StatementError, match="zone"):
        session.execute(update(Dataset).values(settled_at=moment))


def test_a_reading_session_changes_nothing_and_what_it_read_stays(any_database: Database) -> None:
    dataset_id = make_dataset(any_database)
    with any_database.read() as session:
        dataset = session.get_one(Dataset, dataset_id)
        session.execute(update(Dataset).values(name="other"))
        assert session.scalar(select(Dataset.name)) == "other"
    assert dataset.id == dataset_id
    with any_database.read() as session:
        assert session.scalar(select(Dataset.name)) == "digits"


def test_an_error_rolls_a_writing_session_back(any_database: Database) -> None:
    make_dataset(any_database)

    def fail() -> None:
        with any_database.write() as session:
            session.execute(update(Dataset).values(name="other"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with any_database.read() as session:
        assert session.scalar(select(Dataset.name)) == "digits"


def test_what_breaks_after_a_commit_is_not_the_transactions_failure(database: Database) -> None:
    make_dataset(database)
    done: list[str] = []
    with capture_logs() as logged, database.write() as session:
        session.execute(update(Dataset).values(name="other"))
        after_commit(session, lambda: done.append("before"))
        after_commit(session, lambda: {}["missing"])
        after_commit(session, lambda: done.append("behind"))
    assert done == ["before", "behind"]
    assert [line["event"] for line in logged] == ["after_commit_broke"]
    with database.read() as session:
        assert session.scalar(select(Dataset.name)) == "other"


def test_writers_take_turns(any_database: Database) -> None:
    """Read, think, write: on SQLite the second writer waits instead of failing halfway."""
    dataset_id = make_dataset(any_database)

    def add_one() -> None:
        for _ in range(10):
            with any_database.write() as session:
                row = session.scalars(
                    select(Dataset).where(Dataset.id == dataset_id).with_for_update()
                ).one()
                row.upload_bytes += 1

    threads = [threading.Thread(target=add_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with any_database.read() as session:
        assert session.scalar(select(Dataset.upload_bytes)) == 40


def test_none_in_a_json_column_is_null(any_database: Database) -> None:
    make_dataset(any_database)
    with any_database.write() as session:
        session.scalars(select(Dataset)).one().classes = ["a"]
    with any_database.write() as session:
        session.scalars(select(Dataset)).one().classes = None
    with any_database.read() as session:
        count = select(func.count()).select_from(Dataset).where(Dataset.classes.is_(None))
        assert session.scalar(count) == 1


def test_ids_sort_by_the_time_they_were_made() -> None:
    ids = [new_id("job") for _ in range(3)]
    assert len(set(ids)) == 3
    assert [i[:16] for i in ids] == sorted(i[:16] for i in ids)
    assert all(len(i) <= 40 for i in ids)
