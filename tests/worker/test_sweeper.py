"""What becomes of the jobs and files of a worker that went silent."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from app.db import Database, now
from app.jobs import ledger, moves
from app.jobs.claims import Claim
from app.models import Dataset, Job
from app.settings import Settings
from app.storage import LocalStorage
from tests.support import make_dataset
from tests.worker import scenes
from worker import pipeline, sweeper
from worker.checks import dataset_keys
from worker.kinds import trained_prefix
from worker.unpack import UnpackError, unpack


def silent(database: Database, kind: str, max_attempts: int = 1) -> Claim:
    """A claim whose worker has died long ago."""
    dataset_id = make_dataset(database, status="processing" if kind == "ingest" else "ready")
    with database.write() as session:
        options = {"owner": "ana", "dataset_id": dataset_id, "spec": {}, "ring": False}
        moves.submit(session, kind=kind, max_attempts=max_attempts, **options)
        claim = moves.claim(session, worker="dead", lease_seconds=60)
        assert claim is not None
        past = now(session) - timedelta(seconds=1)
        session.execute(update(Job).where(Job.id == claim.job_id).values(lease_until=past))
    return claim


def test_the_dataset_of_a_check_that_always_dies_is_invalid(
    any_database: Database, storage: LocalStorage, settings: Settings, tmp_path: Path
) -> None:
    claim = silent(any_database, "ingest")
    (tmp_path / "upload").write_bytes(b"x")
    storage.put("uploads/u", tmp_path / "upload")
    for key in dataset_keys(claim.dataset_id, 1).values():
        storage.put(key, tmp_path / "upload")
    with any_database.write() as session:
        session.get_one(Dataset, claim.dataset_id).upload_key = "uploads/u"
    (swept,) = sweeper.sweep(any_database, storage, settings)
    assert swept.state == "failed"
    with any_database.read() as session:
        dataset = session.get_one(Dataset, claim.dataset_id)
    assert dataset.status == "invalid"
    assert dataset.findings[0]["code"] == "worker_lost"
    assert scenes.files_under(storage.root) == []


def test_what_a_dead_attempt_left_is_removed(
    database: Database, storage: LocalStorage, settings: Settings, tmp_path: Path
) -> None:
    claim = silent(database, "distil", max_attempts=3)
    (tmp_path / "file").write_bytes(b"x")
    storage.put(f"{trained_prefix(claim.job_id, 1)}/weights", tmp_path / "file")
    folders = pipeline.job_dirs(settings)
    for name in (f"{claim.job_id}-1", "job_0-1", "odd"):
        (folders / name).mkdir(parents=True)
    sweeper.sweep(database, storage, settings)
    assert list(folders.iterdir()) == []
    assert scenes.files_under(storage.root) == []


def test_the_folder_of_a_running_attempt_stays(
    database: Database, storage: LocalStorage, settings: Settings
) -> None:
    claim = silent(database, "distil")
    with database.write() as session:
        ledger.beat(session, claim, lease_seconds=60)
    folder = pipeline.job_dirs(settings) / f"{claim.job_id}-1"
    folder.mkdir(parents=True)
    assert sweeper.sweep(database, storage, settings) == []
    assert folder.exists()


@pytest.mark.parametrize(
    "name", ["../out", "/etc/out", "images/../../out", "images/a/b", "other", "images/.."]
)
def test_only_a_canonical_dataset_is_unpacked(tmp_path: Path, name: str) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("index.json", "{}")
        archive.writestr(name, "x")
    with pytest.raises(UnpackError):
        unpack(tmp_path / "a.zip", tmp_path / "data")
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert found == ["a.zip", "data/index.json"]
