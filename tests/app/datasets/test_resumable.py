"""Resumable uploads: the row's moves, and what is forgotten of them."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import update

from app.datasets import resumable, service
from app.db import Database, now
from app.errors import GoneError, LockedError, NotFoundError, TooManyUploadsError
from app.jobs.idempotency import Idempotency
from app.models import Dataset, Upload
from app.settings import Settings
from app.storage import LocalStorage, Stored
from worker import collector

LENGTH = 1000


def begin(
    database: Database, storage: LocalStorage, settings: Settings, owner: str = "ana"
) -> Upload:
    upload_id = resumable.new_upload_id()
    storage.begin(resumable.part_key(upload_id))
    with database.write() as session:
        return resumable.create(
            session,
            upload_id=upload_id,
            owner=owner,
            name="digits",
            length=LENGTH,
            metadata=None,
            idempotency=Idempotency(None, ""),
            settings=settings,
        )


def finish(database: Database, upload: Upload, settings: Settings) -> Dataset:
    stored = Stored(resumable.part_key(upload.id), LENGTH, "1" * 64)
    with database.write() as session:
        resumable.finish(session, upload, stored, settings)
    with database.read() as session:
        return session.get_one(Dataset, upload.dataset_id)


def lapse(database: Database, upload: Upload) -> None:
    with database.write() as session:
        past = now(session) - timedelta(seconds=1)
        session.execute(update(Upload).where(Upload.id == upload.id).values(expires_at=past))


def age(storage: LocalStorage, *keys: str) -> None:
    long_ago = time.time() - 2 * service.DAY
    for key in keys:
        os.utime(storage.path(key), (long_ago, long_ago))


def test_the_row_moves_and_becomes_a_dataset(
    any_database: Database, storage: LocalStorage, settings: Settings
) -> None:
    upload = begin(any_database, storage, settings)
    with any_database.write() as session:
        resumable.advance(session, upload, 400, settings)
    with any_database.read() as session:
        assert resumable.get(session, "ana", upload.id).received_bytes == 400
        with pytest.raises(NotFoundError):
            resumable.get(session, "bob", upload.id)
    dataset = finish(any_database, upload, settings)
    with any_database.read() as session:
        row = resumable.get(session, "ana", upload.id)
        checked = service.get(session, "ana", dataset.id)
    assert (row.received_bytes, row.expires_at, row.dataset_id) == (LENGTH, None, dataset.id)
    assert dataset.upload_key == resumable.part_key(upload.id)
    assert checked.job is not None
    assert (checked.job.kind, checked.job.state) == ("ingest", "queued")


def test_a_row_that_moved_elsewhere_isnt_moved(
    any_database: Database, storage: LocalStorage, settings: Settings
) -> None:
    upload = begin(any_database, storage, settings)
    with any_database.read() as session:
        stale = resumable.get(session, "ana", upload.id)
    with any_database.write() as session:
        resumable.advance(session, upload, 400, settings)
    with pytest.raises(GoneError), any_database.write() as session:
        resumable.advance(session, stale, 300, settings)
    with pytest.raises(GoneError):
        finish(any_database, stale, settings)
    with any_database.read() as session:
        assert resumable.get(session, "ana", upload.id).received_bytes == 400
        assert session.query(Dataset).all() == []


def test_only_open_uploads_count(
    any_database: Database, storage: LocalStorage, settings: Settings
) -> None:
    settings.max_open_uploads = 2
    first, second = (begin(any_database, storage, settings) for _ in range(2))
    begin(any_database, storage, settings, "bob")
    with pytest.raises(TooManyUploadsError):
        begin(any_database, storage, settings)
    finish(any_database, first, settings)
    lapse(any_database, second)
    begin(any_database, storage, settings)
    begin(any_database, storage, settings)
    with pytest.raises(TooManyUploadsError):
        begin(any_database, storage, settings)


def test_beginning_many_at_once_doesnt_get_more(
    any_database: Database, storage: LocalStorage, settings: Settings
) -> None:
    settings.max_open_uploads = 2
    barrier = Barrier(8)

    def attempt(_: int) -> bool:
        barrier.wait()
        try:
            begin(any_database, storage, settings)
        except TooManyUploadsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 2


def test_what_is_expired_or_spoken_of_by_nobody_is_collected(
    any_database: Database, storage: LocalStorage, settings: Settings
) -> None:
    fresh, expired, done, settled = (begin(any_database, storage, settings) for _ in range(4))
    finish(any_database, done, settings)
    finish(any_database, settled, settings)
    with any_database.write() as session:
        values = {"upload_key": None, "status": "invalid"}
        chosen = Dataset.id == settled.dataset_id
        session.execute(update(Dataset).where(chosen).values(values))
    lapse(any_database, expired)
    for name in ("new", "old"):
        storage.begin(f"parts/{name}")
    keys = [resumable.part_key(each.id) for each in (fresh, expired, done, settled)]
    age(storage, *keys, "parts/old")
    assert collector.collect(any_database, storage, settings) == 3
    assert sorted(storage.older_than(0, "parts")) == sorted([keys[0], keys[2], "parts/new"])
    with any_database.read() as session:
        assert session.get(Upload, expired.id) is None
        assert session.get(Upload, settled.id) is not None
    assert collector.collect(any_database, storage, settings) == 0


def test_an_expired_upload_that_is_being_sent_to_stays(
    database: Database, storage: LocalStorage, settings: Settings
) -> None:
    upload = begin(database, storage, settings)
    lapse(database, upload)
    part = storage.part(resumable.part_key(upload.id))
    assert resumable.forget(database, storage) == 0
    with pytest.raises(LockedError):
        resumable.remove(database, storage, upload.id)
    part.close()
    assert resumable.forget(database, storage) == 1
    assert storage.older_than(0, "parts") == []


def test_an_expired_upload_whose_part_is_lost_goes_too(
    database: Database, storage: LocalStorage, settings: Settings
) -> None:
    upload = begin(database, storage, settings)
    lapse(database, upload)
    storage.delete(resumable.part_key(upload.id))
    assert resumable.forget(database, storage) == 1
