"""Datasets, jobs and students of the client that blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmr.client.bound import BoundDataset, BoundJob, BoundModel, BoundStudent
from tdmr.client.uploads import Progress
from tdmr.wire.datasets import ReportOut
from tdmr.wire.jobs import EventOut
from tdmr.wire.students import PredictionOut

if TYPE_CHECKING:
    from tdmr.client.sync_client import Client


class Dataset(BoundDataset):
    """A dataset as it was when the server was asked."""

    _client: Client

    def refresh(self) -> Dataset:
        """The dataset as it is now."""
        return self._client.dataset(self.id)

    def wait(
        self,
        on_change: Callable[[Dataset], None] | None = None,
        timeout: float | None = None,
        every: float = 0.5,
    ) -> Dataset:
        """The dataset once it is `ready` or `invalid`. Raises TimeoutError."""
        return self._client.wait_for_dataset(self.id, on_change, timeout, every)

    def report(self) -> ReportOut:
        """Every finding of its check, and the newest audit of its images."""
        return self._client.report(self.id)


class Model(BoundModel):
    """A foundation of your own as it was when the server was asked."""

    _client: Client

    def refresh(self) -> Model:
        """The model as it is now."""
        return self._client.model(self.id)

    def wait(
        self,
        on_change: Callable[[Model], None] | None = None,
        timeout: float | None = None,
        every: float = 0.5,
    ) -> Model:
        """The model once it is `ready` or `invalid`. Raises TimeoutError."""
        return self._client.wait_for_model(self.id, on_change, timeout, every)


class Job(BoundJob):
    """A job as it was when the server was asked."""

    _client: Client

    def refresh(self) -> Job:
        """The job as it is now."""
        return self._client.job(self.id)

    def wait(
        self,
        on_change: Callable[[Job], None] | None = None,
        timeout: float | None = None,
        every: float = 0.5,
    ) -> Job:
        """The job once it has ended. Raises TimeoutError; it goes on."""
        return self._client.wait_for_job(self.id, on_change, timeout, every)

    def stream(self, after: int = 0) -> Iterator[EventOut]:
        """Its log as it is written, behind event number `after`, until it has ended."""
        return self._client.stream(self.id, after)

    def cancel(self) -> Job:
        """Call it off."""
        return self._client.cancel(self.id)

    def pause(self) -> Job:
        """Stop it behind a checkpoint."""
        return self._client.pause(self.id)

    def resume(self) -> Job:
        """Queue it again."""
        return self._client.resume(self.id)

    def retry(self, **changes: Any) -> Job:
        """Order it anew, with changes if you like; the new job."""
        return self._client.retry(self.id, **changes)

    def fetch_student(self) -> Student:
        """The student that it has made (`student` is the architecture). Raises LookupError."""
        made = self if self.student_id is not None else self.refresh()
        return self._client.student(made.student_made())


class Student(BoundStudent):
    """A student as it was when the server was asked."""

    _client: Client

    def download(
        self, folder: str | Path, *, on_progress: Progress | None = None, patience: float = 300.0
    ) -> Path:
        """Fetch every file into a new folder; see `Client.download`."""
        return self._client.download(self.id, folder, on_progress=on_progress, patience=patience)

    def predict(self, images: Iterable[str | Path], top: int = 5) -> list[PredictionOut]:
        """What images show: for each its `classes`, by calibrated probability."""
        return self._client.predict(self.id, images, top)
