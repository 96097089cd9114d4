"""A worker's `run_next`, in this process or in a thread of it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from app.db import Database
from app.models import Job
from app.settings import Settings
from app.storage import LocalStorage
from tests.worker import scenes
from tests.worker.standin_worker import standin
from worker import pipeline
from worker.pipeline import Launch


@dataclass
class Bench:
    """A worker's `run_next`, in this process or in a thread of it."""

    database: Database
    storage: LocalStorage
    settings: Settings
    stop: bool = False
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def run(self, launch: Launch = standin) -> bool:
        return pipeline.run_next(
            self.database,
            self.storage,
            self.settings,
            worker="bench",
            device="cpu",
            launch=launch,
            stopping=lambda: self.stop,
        )

    def finish(self, launch: Launch = standin) -> None:
        """Run what is due until nothing is."""
        while self.run(launch):
            pass

    def begin(self) -> Future[bool]:
        return self.pool.submit(self.run)

    def submit(self, play: str | list[str], **given: Any) -> str:
        return scenes.distil_job(self.database, self.storage, play, **given)

    def job(self, job_id: str) -> Job:
        return scenes.job(self.database, job_id)

    def left(self) -> list[str]:
        """Files of the job directories and of students."""
        return scenes.files_under(self.settings.work_dir, self.storage.root / "students")
