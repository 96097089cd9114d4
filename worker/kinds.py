"""What each kind of job needs: its folder filled, a command to run, its result published."""

from __future__ import annotations

import json
import sys
from typing import Any, Protocol

from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.db import Database
from app.jobs.ledger import Claim
from app.models import Dataset, Student
from app.settings import Settings
from app.storage import LocalStorage, Stored
from app.students import service as students
from tdmr.errors import Failure
from tdmr.jobdir import JobDir
from worker.unpack import unpack


class Kind(Protocol):
    """The four moments of an attempt in which its kind matters.

    `store` comes before the transaction that ends the job, `publish` or `give_up` within it, and
    `tidy` after it, whatever became of it: it removes what no row speaks of.
    """

    def prepare(self, job: JobDir) -> None:
        """Write the configuration and fetch the data."""

    def command(self, job: JobDir, device: str) -> list[str]:
        """What to run."""

    def store(self, job: JobDir) -> None:
        """Put the result's files into storage, durable, under names of this attempt's own."""

    def publish(self, session: Session) -> dict[str, Any]:
        """Write the rows that make the result visible; give the data of the last event."""

    def give_up(self, session: Session, failure: Failure) -> None:
        """The job has ended without a result."""

    def tidy(self) -> None:
        """Remove the files that turned out to be nobody's."""


class Distil:
    """A student from a dataset and two models."""

    def __init__(
        self, database: Database, storage: LocalStorage, settings: Settings, claim: Claim
    ) -> None:
        self._database, self._storage, self._settings = database, storage, settings
        self._claim = claim
        self._student_id = student_id(claim.job_id, claim.attempt)
        self._files: list[dict[str, Any]] = []
        self._metrics: dict[str, Any] = {}

    def prepare(self, job: JobDir) -> None:
        """The options as they were submitted, and the dataset's images."""
        dataset = _dataset(self._database, self._claim)
        if dataset.file_key is None:
            raise LookupError(f"dataset {dataset.id} is {dataset.status}")
        job.config.write_text(json.dumps(self._claim.spec), encoding="utf-8")
        archive = job.path / "dataset.zip"
        self._storage.fetch(dataset.file_key, archive)
        unpack(archive, job.data)
        archive.unlink()

    def command(self, job: JobDir, device: str) -> list[str]:
        """The library's own command; the cache outlives the job and serves the next one."""
        cache = self._settings.work_dir / "cache"
        run = [sys.executable, "-m", "tdmr", "run", str(job.path)]
        return [*run, "--device", device, "--cache", str(cache)]

    def store(self, job: JobDir) -> None:
        """The bundle's files, each checked against the bundle's manifest."""
        self._metrics = json.loads((job.out / "metrics.json").read_bytes())
        self._files = students.store(self._storage, self._student_id, job.out)

    def publish(self, session: Session) -> dict[str, Any]:
        """The student's row."""
        students.publish(
            session,
            student_id=self._student_id,
            job_id=self._claim.job_id,
            owner=self._claim.owner,
            dataset_id=self._claim.dataset_id,
            spec=self._claim.spec,
            files=self._files,
            metrics=self._metrics,
        )
        return {"student_id": self._student_id}

    def give_up(self, session: Session, failure: Failure) -> None:
        """Nothing but the job's own row speaks of a distillation that failed."""

    def tidy(self) -> None:
        """Delete the stored files unless the student is there: its commit may have gone through."""
        with self._database.read() as session:
            published = session.get(Student, self._student_id) is not None
        if not published:
            self._storage.delete(f"students/{self._student_id}")


class Ingest:
    """The check of an upload, which settles its dataset. Invalid data is a result too."""

    def __init__(
        self, database: Database, storage: LocalStorage, settings: Settings, claim: Claim
    ) -> None:
        self._database, self._storage, self._settings = database, storage, settings
        self._claim = claim
        self._key = dataset_key(claim.dataset_id, claim.attempt)
        self._report: dict[str, Any] = {}
        self._file: Stored | None = None
        self._upload: str | None = None

    def prepare(self, job: JobDir) -> None:
        """The limits of the check, and the upload as it came."""
        dataset = _dataset(self._database, self._claim)
        if dataset.upload_key is None:
            raise LookupError(f"dataset {dataset.id} is {dataset.status}")
        options = datasets.check_options(dataset, self._settings)
        job.config.write_text(options.model_dump_json(), encoding="utf-8")
        job.data.mkdir()
        self._storage.fetch(dataset.upload_key, job.data / "upload")

    def command(self, job: JobDir, device: str) -> list[str]:
        """The check runs apart from the worker: what it opens isn't to be trusted."""
        return [sys.executable, "-m", "app.datasets.check", str(job.path)]

    def store(self, job: JobDir) -> None:
        """The canonical dataset, when there is one."""
        self._report = json.loads((job.out / "report.json").read_bytes())
        made = job.out / "dataset.zip"
        if made.exists():
            self._file = self._storage.put(self._key, made)

    def publish(self, session: Session) -> dict[str, Any]:
        """The dataset, ready or invalid."""
        dataset_id = self._claim.dataset_id
        self._upload = datasets.settle(session, dataset_id, self._report, self._file)
        return {"dataset_id": dataset_id}

    def give_up(self, session: Session, failure: Failure) -> None:
        """A dataset that couldn't be checked is invalid, and says why."""
        self._upload = datasets.settle_failed(session, self._claim.dataset_id, failure)

    def tidy(self) -> None:
        """Delete the upload once it's settled, and the canonical file if nobody points to it."""
        dataset = _dataset(self._database, self._claim)
        if self._upload is not None and dataset.upload_key is None:
            self._storage.delete(self._upload)
        if dataset.file_key != self._key:
            self._storage.delete(self._key)


def make(
    database: Database, storage: LocalStorage, settings: Settings, claim: Claim
) -> Distil | Ingest:
    """The kind of the claimed job, ready for this attempt."""
    if claim.kind == "ingest":
        return Ingest(database, storage, settings, claim)
    return Distil(database, storage, settings, claim)


def student_id(job_id: str, attempt: int) -> str:
    """The student that this attempt would make: known to whoever tidies up after its death."""
    return f"stu_{job_id.removeprefix('job_')}{attempt:02x}"


def dataset_key(dataset_id: str, attempt: int) -> str:
    """Where this attempt stores the canonical dataset."""
    return f"datasets/{dataset_id}/dataset-{attempt}.zip"


def _dataset(database: Database, claim: Claim) -> Dataset:
    with database.read() as session:
        return session.get_one(Dataset, claim.dataset_id)
