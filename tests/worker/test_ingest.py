"""An upload on its way to a dataset, from its claim to its end."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import pytest

from app.models import Dataset
from tests.support import wait_until
from tests.worker import scenes
from tests.worker.bench import Bench
from tests.worker.scenes import GOOD, ingest_job
from worker.launch import Child


def dataset(bench: Bench, dataset_id: str) -> Dataset:
    with bench.database.read() as session:
        return session.get_one(Dataset, dataset_id)


def test_a_good_upload_becomes_a_dataset(bench: Bench) -> None:
    dataset_id, job_id = ingest_job(bench.database, bench.storage, GOOD)
    bench.run(Child)
    found = dataset(bench, dataset_id)
    assert (bench.job(job_id).state, found.status) == ("succeeded", "ready")
    assert found.classes == ["cat", "dog"]
    assert found.file_key is not None
    keys = (found.file_key, found.gallery_key or "")
    archive = bench.storage.path(str(found.file_key)).read_bytes()
    assert found.file_sha256 == hashlib.sha256(archive).hexdigest()
    assert scenes.files_under(bench.storage.root) == [str(bench.storage.path(k)) for k in keys]


def test_a_bad_upload_is_a_finding_not_a_failure(bench: Bench) -> None:
    dataset_id, job_id = ingest_job(bench.database, bench.storage, {"cat/1.png": "red"})
    bench.run(Child)
    found = dataset(bench, dataset_id)
    assert (bench.job(job_id).state, found.status) == ("succeeded", "invalid")
    assert found.findings
    assert scenes.files_under(bench.storage.root) == []


@pytest.mark.parametrize("how", ["dies", "is cancelled"])
def test_a_check_that_does_not_end_well_makes_the_dataset_invalid(bench: Bench, how: str) -> None:
    dataset_id, job_id = ingest_job(bench.database, bench.storage, GOOD)
    if how == "dies":
        bench.run(lambda _command, job: Child(["false"], job))
    else:
        sleeping: Callable[..., Child] = lambda _command, job: Child(["sleep", "600"], job)  # noqa: E731  # shorter than a def
        running = threading.Thread(target=bench.run, args=[sleeping])
        running.start()
        wait_until(lambda: bench.job(job_id).state == "running")
        scenes.request_cancel(bench.database, job_id)
        running.join()
    found = dataset(bench, dataset_id)
    assert found.status == "invalid"
    assert found.findings[0]["code"] == ("process_died" if how == "dies" else "cancelled")
    assert scenes.files_under(bench.storage.root) == []
