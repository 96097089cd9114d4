"""Where a claimed job is worked on, and what its folder is filled with."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy.orm import Session

from app.db import Database
from app.foundations import service as foundations
from app.jobs.claims import Claim
from app.jobs.states import State
from app.models import Dataset, Json, Model
from app.settings import Settings
from app.storage import Storage
from tdmr import own
from tdmr.errors import Failure
from tdmr.jobdir import JobDir, ProgressLine
from worker.unpack import unpack


class Kind(Protocol):
    """The moments of an attempt in which its kind matters.

    `store` comes before the transaction that ends the job, `publish` or `give_up` within it, and
    `tidy` after it, whatever became of it: it removes what no row speaks of.
    """

    def prepare(self, job: JobDir) -> None:
        """Write the configuration and fetch the data."""

    def command(self, job: JobDir, device: str) -> list[str]:
        """What to run."""

    def keep(self, job: JobDir, line: ProgressLine) -> None:
        """Make a checkpoint durable that the process has written. Raises LeaseLostError."""

    def store(self, job: JobDir) -> None:
        """Put the result's files into storage, durable, under names of this attempt's own."""

    def publish(self, session: Session) -> State:
        """End the job with the rows that make its result visible."""

    def give_up(self, session: Session, failure: Failure) -> None:
        """The job has ended without a result."""

    def tidy(self) -> None:
        """Remove the files that turned out to be nobody's."""


@dataclass(frozen=True)
class Site:
    """Where a claimed job is worked on."""

    database: Database
    storage: Storage
    settings: Settings
    claim: Claim

    @property
    def ring(self) -> bool:
        """Whether a queued job is owed a bell."""
        return self.settings.broker_url is not None

    @property
    def cache(self) -> Path:
        """The view cache: it outlives the job, and serves the next one on the same images."""
        version = self.dataset().version
        assert version is not None, "jobs run on datasets that are ready"
        return views(self.settings) / version

    @property
    def dataset_id(self) -> str:
        """The job's dataset: only the check of a model has none."""
        assert self.claim.dataset_id is not None
        return self.claim.dataset_id

    def dataset(self) -> Dataset:
        """The job's dataset, as it is now."""
        with self.database.read() as session:
            return session.get_one(Dataset, self.dataset_id)

    def unpack_dataset(self, job: JobDir) -> None:
        """Put the images of the job's dataset into JOB_DIR/data."""
        dataset = self.dataset()
        if dataset.file_key is None:
            raise LookupError(f"dataset {dataset.id} is {dataset.status}")
        archive = job.path / "dataset.zip"
        self.storage.fetch(dataset.file_key, archive, dataset.file_sha256)
        unpack(archive, job.data)
        archive.unlink()

    def model(self, model_id: str) -> Model:
        """An own foundation, as it is now."""
        with self.database.read() as session:
            return session.get_one(Model, model_id)

    def bring_foundation(self, job: JobDir, spec: Json) -> None:
        """Put the foundation into JOB_DIR/models where it is one of the owner's own."""
        if own.is_own(spec["foundation"]):
            self.bring_model(job, spec["foundation"])

    def bring_model(self, job: JobDir, model_id: str) -> None:
        """Put an own foundation into JOB_DIR/models, the very bytes that were uploaded."""
        model = self.model(model_id)
        if model.file_key is None:
            raise LookupError(f"model {model.id} is {model.status}")
        weights = own.place(job.models, model.id, foundations.about(model))
        self.storage.fetch(model.file_key, weights, model.sha256)


def tdmr_command(verb: str, job: JobDir, *options: str) -> list[str]:
    """A command of the library's, on JOB_DIR."""
    return [sys.executable, "-m", "tdmr", verb, str(job.path), *options]


def views(settings: Settings) -> Path:
    """Where this machine keeps views and features, in a folder for each dataset's version."""
    return settings.work_dir / "cache"
