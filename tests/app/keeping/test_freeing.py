"""What is freed, in which order, and what becomes of it when the collector dies in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from app.db import Database, new_id, now
from app.jobs import ledger, moves
from app.jobs.claims import Checkpoint, CheckpointFile
from app.keeping import freeing
from app.models import Dataset, Deletable, Job, Student
from app.settings import Settings
from app.storage import LocalStorage
from tdmr.failpoint import COLLECTOR_POINTS, VARIABLE
from tests.app.jobs import steps
from tests.support import make_dataset
from tests.worker import scenes
from worker import collector

TABLES: tuple[type[Deletable], ...] = (Dataset, Student, Job)


def put(storage: LocalStorage, key: str) -> str:
    source = storage.root / ".staging" / "source"
    source.write_bytes(b"x")
    storage.put(key, source)
    source.unlink()
    return key


def stored_checkpoint(storage: LocalStorage, job_id: str) -> Checkpoint:
    key = put(storage, f"checkpoints/{job_id}/1-1-reprogram.bin")
    file = CheckpointFile(name="reprogram.bin", key=key, bytes=1, sha256="0" * 64)
    return Checkpoint(stage="reprogram", step=1, files={"reprogram": file})


def thing_of_each_kind(database: Database, storage: LocalStorage) -> tuple[str, str, str]:
    """A dataset, a student and a failed job with a checkpoint: ids of rows with stored files."""
    claim = steps.claimed(database)
    dataset_id, student_id = claim.dataset_id, new_id("stu")
    steps.save(database, claim, stored_checkpoint(storage, claim.job_id))
    steps.do(database, ledger.fail, claim, steps.FINAL)
    with database.write() as session:
        dataset = session.get_one(Dataset, dataset_id)
        dataset.file_key = put(storage, f"datasets/{dataset_id}/dataset-1.zip")
        dataset.gallery_key = put(storage, f"datasets/{dataset_id}/gallery-1.bin")
        session.add(
            Student(
                id=student_id,
                owner="ana",
                job_id=claim.job_id,
                dataset_id=dataset_id,
                dataset_version="1" * 64,
                foundation="f",
                architecture="s",
                partial=False,
                metrics={"accuracy": 0.9},
                files=[{"key": put(storage, f"students/{student_id}/{n}")} for n in ("a", "b")],
                created_at=now(session),
            )
        )
    return dataset_id, student_id, claim.job_id


def delete(database: Database, table: type[Deletable], id_: str, seconds: float = 0.0) -> None:
    """Delete it so that its time is over in `seconds`."""
    with database.write() as session:
        row = session.get_one(table, id_)
        row.deleted_at = now(session)
        row.kept_until = now(session) + timedelta(seconds=seconds)


def promised(database: Database) -> set[str]:
    """Every stored file that a row speaks of."""
    keys: set[str | None] = set()
    with database.read() as session:
        for dataset in session.scalars(select(Dataset)):
            keys |= {dataset.file_key, dataset.gallery_key}
        for student in session.scalars(select(Student)):
            keys |= {file["key"] for file in student.files}
        for job in session.scalars(select(Job).where(Job.checkpoint.is_not(None))):
            files = Checkpoint.model_validate(job.checkpoint).files.values()
            keys |= {file.key for file in files}
    return {key for key in keys if key is not None}


def stored(storage: LocalStorage) -> set[str]:
    found = (path.relative_to(storage.root) for path in storage.root.rglob("*") if path.is_file())
    return {path.as_posix() for path in found}


def test_only_what_is_deleted_and_over_is_freed(
    any_database: Database, storage: LocalStorage
) -> None:
    kept = thing_of_each_kind(any_database, storage)
    waiting = thing_of_each_kind(any_database, storage)
    over = thing_of_each_kind(any_database, storage)
    for table, first, second in zip(TABLES, waiting, over, strict=True):
        delete(any_database, table, first, 3600)
        delete(any_database, table, second)
    assert freeing.free(any_database, storage) == 3
    assert freeing.free(any_database, storage) == 0
    assert stored(storage) == promised(any_database)
    assert len(stored(storage)) == 10
    assert not any(id_ in key for id_ in over for key in stored(storage))
    assert all(any(id_ in key for key in stored(storage)) for id_ in (*kept, *waiting))
    assert steps.log(any_database, kept[2]) != []
    assert steps.log(any_database, over[2]) == []


@pytest.mark.parametrize("place", range(3), ids=["dataset", "student", "job"])
@pytest.mark.parametrize("point", COLLECTOR_POINTS)
def test_a_collector_may_die_at_every_point(
    database: Database,
    storage: LocalStorage,
    settings: Settings,
    tmp_path: Path,
    point: str,
    place: int,
) -> None:
    over = thing_of_each_kind(database, storage)[place]
    before = stored(storage)
    delete(database, TABLES[place], over)
    code = (
        "from app.settings import Settings; from app.db import Database\n"
        "from app.storage import LocalStorage; from worker import collector\n"
        "s = Settings(); collector.collect(Database(s.url), LocalStorage(s.storage_dir), s)"
    )
    environment = os.environ | scenes.environment(settings)
    environment |= {VARIABLE: f"{point}:{tmp_path / 'marker'}"}
    died = subprocess.run([sys.executable, "-c", code], env=environment).returncode
    assert died == -signal.SIGKILL
    assert promised(database) <= stored(storage)
    settings.lease_seconds = 0.0  # whatever is stored is old enough
    collector.collect(database, storage, settings)
    assert promised(database) == stored(storage)
    assert stored(storage) == {key for key in before if over not in key} < before
    assert freeing.free(database, storage) == 0


def test_a_collector_that_dies_before_its_commit_frees_nothing(
    any_database: Database, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = thing_of_each_kind(any_database, storage)
    delete(any_database, Dataset, over[0])
    before = stored(storage)

    def die(name: str) -> None:
        raise KeyboardInterrupt(name)

    monkeypatch.setattr(freeing.failpoint, "reached", die)
    with pytest.raises(KeyboardInterrupt, match=r"free\.written"):
        freeing.free(any_database, storage)
    assert stored(storage) == promised(any_database) == before


def test_many_at_once_free_each_thing_once(any_database: Database, storage: LocalStorage) -> None:
    ids = [make_dataset(any_database) for _ in range(2 * freeing.BATCH + 1)]
    for id_ in ids:
        delete(any_database, Dataset, id_)
    with ThreadPoolExecutor(3) as pool:
        counts = list(pool.map(lambda _: freeing.free(any_database, storage), range(3)))
    assert sum(counts) == len(ids)
    with any_database.read() as session:
        rows = session.scalars(select(Dataset)).all()
    assert all(row.kept_until is None and row.name == "" for row in rows)


def test_a_checkpoint_stays_for_the_retry_that_goes_on_from_it(
    any_database: Database, storage: LocalStorage
) -> None:
    _, _, job_id = thing_of_each_kind(any_database, storage)
    with any_database.write() as session:
        old = session.get_one(Job, job_id)
        options = {"owner": "ana", "kind": "distil", "dataset_id": old.dataset_id, "spec": {}}
        options |= {"max_attempts": 3, "ring": False, "checkpoint": old.checkpoint}
        heir = moves.submit(session, **options, retry_of=job_id).id
    delete(any_database, Job, job_id)
    before = stored(storage)
    assert freeing.free(any_database, storage) == 0
    assert stored(storage) == before
    claim = steps.claim(any_database)
    steps.save(any_database, claim, stored_checkpoint(storage, heir))
    assert freeing.free(any_database, storage) == 1
    assert [key for key in stored(storage) if job_id in key] == []
    assert promised(any_database) == stored(storage)
