"""Datasets: settled once, by whoever comes first."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from app.datasets import service
from app.db import Database
from app.errors import NotFoundError
from app.jobs.idempotency import Idempotency
from app.models import Dataset
from app.settings import Settings
from app.storage import LocalStorage, Stored
from tdmr.errors import Failure

UPLOAD = Stored("uploads/ds_1", 5 << 20, "0" * 64)
REPORT = {
    "ok": True,
    "version": "1" * 64,
    "classes": ["a", "b"],
    "splits": {"train": {"a": 2, "b": 2}, "test": {"a": 1, "b": 1}},
    "findings": [],
}


@pytest.fixture
def dataset(any_database: Database, settings: Settings) -> Dataset:
    with any_database.write() as session:
        return service.create(
            session,
            dataset_id="ds_1",
            owner="ana",
            name="digits",
            upload=UPLOAD,
            idempotency=Idempotency(None, ""),
            settings=settings,
        ).dataset


FILES = service.Published(Stored("datasets/1", 1, ""), Stored("galleries/1", 1, ""))


def read(database: Database) -> Dataset:
    with database.read() as session:
        return service.get(session, "ana", "ds_1").dataset


def test_a_new_one_is_processing_and_its_check_queued(
    any_database: Database, dataset: Dataset
) -> None:
    with any_database.read() as session:
        checked = service.get(session, "ana", dataset.id)
    assert checked.dataset.status == "processing"
    assert checked.job is not None
    assert (checked.job.kind, checked.job.state) == ("ingest", "queued")


def test_a_good_report_makes_it_ready(any_database: Database, dataset: Dataset) -> None:
    with any_database.write() as session:
        upload = service.settle(session, dataset.id, REPORT, FILES)
    found = read(any_database)
    assert upload == UPLOAD.key
    assert (found.status, found.version) == ("ready", "1" * 64)
    assert (found.file_key, found.gallery_key) == ("datasets/1", "galleries/1")
    assert found.upload_key is None
    assert found.settled_at is not None


def test_a_bad_report_makes_it_invalid_with_its_findings(
    any_database: Database, dataset: Dataset
) -> None:
    finding = {"code": "one_class", "severity": "error"}
    with any_database.write() as session:
        report = {**REPORT, "ok": False, "findings": [finding]}
        assert service.settle(session, dataset.id, report, None) == UPLOAD.key
    found = read(any_database)
    assert (found.status, found.version, found.findings) == ("invalid", None, [finding])


def test_a_check_that_died_makes_it_invalid_and_says_why(
    any_database: Database, dataset: Dataset
) -> None:
    failure = Failure(code="worker_lost", user_error=False, detail="It went silent.")
    with any_database.write() as session:
        assert service.settle_failed(session, dataset.id, failure) == UPLOAD.key
    found = read(any_database)
    assert found.status == "invalid"
    assert found.findings[0]["code"] == "worker_lost"
    assert found.findings[0]["detail"] == "It went silent."


def test_what_is_settled_stays_as_it_is(any_database: Database, dataset: Dataset) -> None:
    with any_database.write() as session:
        service.settle(session, dataset.id, REPORT, FILES)
    with any_database.write() as session:
        failure = Failure(code="late", user_error=False, detail="x")
        assert service.settle_failed(session, dataset.id, failure) is None
        assert service.settle(session, dataset.id, {**REPORT, "ok": False}, None) is None
    assert read(any_database).status == "ready"


def test_somebody_elses_is_not_found(any_database: Database, dataset: Dataset) -> None:
    with any_database.read() as session, pytest.raises(NotFoundError):
        service.get(session, "bob", dataset.id)


def test_the_time_for_a_check_grows_with_the_upload(
    any_database: Database, dataset: Dataset, settings: Settings
) -> None:
    options = service.check_options(dataset, settings)
    assert options.cpu_seconds == 300 + 4 * 5
    assert options.memory_bytes == 2 * 2**30 + 16 * settings.max_image_pixels
    assert options.max_entries == settings.max_entries


def test_orphaned_uploads_are_forgotten_after_a_day(
    any_database: Database, dataset: Dataset, storage: LocalStorage, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    for name in ("ds_1", "ds_2", "ds_3"):
        storage.put(f"uploads/{name}", source)
        if name != "ds_3":  # which is new: its row may be about to come
            long_ago = time.time() - 2 * service.DAY
            os.utime(storage.path(f"uploads/{name}"), (long_ago, long_ago))
    with any_database.read() as session:
        service.forget_orphans(session, storage)
    assert sorted(storage.older_than(0, "uploads")) == ["uploads/ds_1", "uploads/ds_3"]
