"""The checks of what was uploaded: of datasets, and of own foundations."""

from __future__ import annotations

import json
import sys
from typing import Any

from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.foundations import service as foundations
from app.jobs import ledger
from app.jobs.states import State
from tdmr.errors import Failure
from tdmr.jobdir import JobDir, ProgressLine
from tdmr.own import REPORT, Report
from worker.site import Site, tdmr_command


class Ingest:
    """The check of an upload, which settles its dataset. Invalid data is a result too."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._keys = dataset_keys(site.dataset_id, site.claim.attempt)
        self._report: dict[str, Any] = {}
        self._files: datasets.Published | None = None
        self._upload: str | None = None

    def prepare(self, job: JobDir) -> None:
        """The limits of the check, and the upload as it came."""
        dataset = self._site.dataset()
        if dataset.upload_key is None:
            raise LookupError(f"dataset {dataset.id} is {dataset.status}")
        options = datasets.check_options(dataset, self._site.settings)
        job.config.write_text(options.model_dump_json(), encoding="utf-8")
        job.data.mkdir()
        upload = job.data / "upload"
        self._site.storage.fetch(dataset.upload_key, upload, dataset.upload_sha256)

    def command(self, job: JobDir, device: str) -> list[str]:
        """The check runs apart from the worker: what it opens isn't to be trusted."""
        return [sys.executable, "-m", "app.datasets.check", str(job.path)]

    def keep(self, job: JobDir, line: ProgressLine) -> None:
        """A check begins again: it writes no checkpoints."""

    def store(self, job: JobDir) -> None:
        """The canonical dataset and its gallery, when there is one."""
        self._report = json.loads((job.out / "report.json").read_bytes())
        if self._report["ok"]:
            put = self._site.storage.put
            stored = [put(key, job.out / name) for name, key in self._keys.items()]
            self._files = datasets.Published(*stored)

    def publish(self, session: Session) -> State:
        """The dataset, ready or invalid."""
        dataset_id = self._site.dataset_id
        self._upload = datasets.settle(session, dataset_id, self._report, self._files)
        ledger.succeed(session, self._site.claim, {"dataset_id": dataset_id})
        return State.SUCCEEDED

    def give_up(self, session: Session, failure: Failure) -> None:
        """A dataset that couldn't be checked is invalid, and says why."""
        self._upload = datasets.settle_failed(session, self._site.dataset_id, failure)

    def tidy(self) -> None:
        """Delete the upload once it's settled, and the files if nobody points to them."""
        dataset = self._site.dataset()
        if self._upload is not None and dataset.upload_key is None:
            self._site.storage.delete(self._upload)
        if dataset.file_key not in self._keys.values():
            for key in self._keys.values():
                self._site.storage.delete(key)


class ModelCheck:
    """The check of uploaded weights, which settles their model. A misfit is a result too."""

    def __init__(self, site: Site) -> None:
        self._site = site
        assert site.claim.model_id is not None, "of a model"
        self._model_id = site.claim.model_id
        self._report = Report()
        self._unwanted: str | None = None

    def prepare(self, job: JobDir) -> None:
        """The limits of the check, and the weights as they came."""
        options = foundations.check_options(self._site.model(self._model_id))
        job.config.write_text(options.model_dump_json(), encoding="utf-8")
        self._site.bring_model(job, self._model_id)

    def command(self, job: JobDir, device: str) -> list[str]:
        """The library's own: it takes the model as a job does."""
        return tdmr_command("check-model", job)

    def keep(self, job: JobDir, line: ProgressLine) -> None:
        """A check begins again: it writes no checkpoints."""

    def store(self, job: JobDir) -> None:
        """Nothing: the weights stay where they are."""
        self._report = Report.model_validate_json((job.out / REPORT).read_bytes())

    def publish(self, session: Session) -> State:
        """The model, ready or invalid."""
        self._unwanted = foundations.settle(session, self._model_id, self._report)
        ledger.succeed(session, self._site.claim, {"model_id": self._model_id})
        return State.SUCCEEDED

    def give_up(self, session: Session, failure: Failure) -> None:
        """A model that couldn't be checked is invalid, and says why."""
        self._unwanted = foundations.settle_failed(session, self._model_id, failure)

    def tidy(self) -> None:
        """Delete weights that turned out to be no use."""
        if self._unwanted is not None and self._site.model(self._model_id).file_key is None:
            self._site.storage.delete(self._unwanted)


def dataset_keys(dataset_id: str, attempt: int) -> dict[str, str]:
    """Where this attempt stores what the check writes, by the names that it gives."""
    folder = f"datasets/{dataset_id}"
    return {
        "dataset.zip": f"{folder}/dataset-{attempt}.zip",
        "gallery.bin": f"{folder}/gallery-{attempt}.bin",
    }
