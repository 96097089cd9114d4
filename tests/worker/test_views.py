"""The view cache: a folder for each dataset's version, gone when no dataset has those images."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from app.db import Database, now
from app.models import Dataset
from app.settings import Settings
from app.storage import LocalStorage
from tdmr.jobdir import JobDir
from tests.app.jobs import steps
from tests.support import make_dataset
from tests.worker import scenes
from worker import collector
from worker.kinds import make
from worker.site import Site, views


def has_content(database: Database, dataset_id: str, version: str) -> None:
    with database.write() as session:
        row = session.get_one(Dataset, dataset_id)
        row.version, row.file_key = version, f"datasets/{dataset_id}/dataset-1.zip"


def delete(database: Database, dataset_id: str) -> None:
    with database.write() as session:
        row = session.scalars(select(Dataset).where(Dataset.id == dataset_id)).one()
        row.deleted_at = row.kept_until = now(session)


def test_views_go_with_the_last_dataset_that_has_their_images(
    any_database: Database, storage: LocalStorage, settings: Settings
) -> None:
    first, twin, other = (make_dataset(any_database) for _ in range(3))
    for dataset_id, version in ((first, "a" * 64), (twin, "a" * 64), (other, "b" * 64)):
        has_content(any_database, dataset_id, version)
        (views(settings) / version / "entry").mkdir(parents=True, exist_ok=True)
    (views(settings) / ("c" * 64)).mkdir()  # of a dataset that was freed while nobody worked here

    def left() -> list[str]:
        collector.collect(any_database, storage, settings)
        return sorted(path.name[0] for path in views(settings).iterdir())

    assert left() == ["a", "b"]
    delete(any_database, first)
    assert left() == ["a", "b"]
    delete(any_database, twin)
    assert left() == ["b"]


def test_a_job_uses_the_views_of_its_own_dataset(
    database: Database, storage: LocalStorage, settings: Settings, tmp_path: Path
) -> None:
    scenes.distil_job(database, storage, "done")
    kind = make(Site(database, storage, settings, steps.claim(database)))
    command = kind.command(JobDir(tmp_path), "cpu")
    assert command[command.index("--cache") + 1] == str(views(settings) / ("1" * 64))
