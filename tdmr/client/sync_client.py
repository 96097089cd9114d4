"""The client that blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

from tdmr.client import calls, downloads, events, steps, uploads
from tdmr.client.calls import Call
from tdmr.client.connection import TIMEOUT, Connection
from tdmr.client.drivers import Blocking
from tdmr.client.reading import read
from tdmr.client.steps import Parse, When
from tdmr.client.sync_things import Dataset, Job, Model, Student
from tdmr.client.uploads import RESUMABLE_FROM, How, Progress
from tdmr.config import DEFAULT_BASELINES, DistillOptions
from tdmr.wire.datasets import DatasetSummary, ReportOut
from tdmr.wire.jobs import EventOut
from tdmr.wire.models import ModelOut, OwnModelSummary, RecommendationsOut
from tdmr.wire.plans import DryRunOut, EstimatesOut
from tdmr.wire.students import PredictionOut, PredictionsOut, StudentSummary
from tdmr.wire.sweeps import SweepOut, SweepSummary

T = TypeVar("T")


class Client:
    """Talks to one server with one access key; without them, with those of `tdmr login`.

    Every call raises ApiError for a refusal, and httpx.TransportError when the server can't be
    reached. What may be sent twice is sent again for up to `patience` seconds of trouble that may
    pass. `timeout` is in seconds, for each answer.
    """

    def __init__(
        self,
        address: str | None = None,
        key: str | None = None,
        *,
        timeout: float = TIMEOUT,
        patience: float = 60.0,
    ) -> None:
        self._http = httpx.Client(**Connection.find(address, key).arguments(timeout))
        self._driver, self._patience = Blocking(self._http), patience
        self._job = partial(Job.of, self)
        self._dataset = partial(Dataset.of, self)
        self._model = partial(Model.of, self)
        self._student = partial(Student.of, self)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def upload_dataset(
        self,
        source: str | Path,
        name: str | None = None,
        *,
        on_progress: Progress | None = None,
        on_packed: Progress | None = None,
        resumable_from: int = RESUMABLE_FROM,
        patience: float = 300.0,
    ) -> Dataset:
        """Send an archive, or a folder packed as one; the dataset, still `processing`.

        It is streamed from disk. From `resumable_from` bytes on it goes in pieces, and goes on
        where it was after trouble that is over within `patience` seconds. `on_progress` is told how
        many bytes have arrived, and of how many; `on_packed` how many of a folder's are packed.
        Raises DigestError when the server has stored something else, and ValueError for an empty
        folder.
        """
        how = How(on_progress, on_packed, resumable_from, patience)
        return self._driver.run(uploads.upload(Path(source), name, self._dataset, how))

    def datasets(self) -> Iterator[DatasetSummary]:
        """Your datasets, the newest first; pages are asked for as they are needed."""
        return self._each(calls.get("datasets"), partial(read, DatasetSummary))

    def dataset(self, dataset_id: str) -> Dataset:
        """A dataset: status, classes, splits and findings."""
        return self._ask(calls.get("datasets", dataset_id), self._dataset)

    def report(self, dataset_id: str) -> ReportOut:
        """Every finding of a dataset's check, and the newest audit of its images, or None."""
        return self._ask(calls.get("datasets", dataset_id, "report"), partial(read, ReportOut))

    def wait_for_dataset(
        self,
        dataset_id: str,
        on_change: Callable[[Dataset], None] | None = None,
        timeout: float | None = None,
        every: float = 0.5,
    ) -> Dataset:
        """Wait until the dataset is `ready` or `invalid`. Raises TimeoutError."""
        call, when = calls.get("datasets", dataset_id), When(timeout, every, self._patience)
        over = attrgetter("settled")
        return self._driver.run(steps.watch(call, self._dataset, over, on_change, when))

    def models(self, role: str | None = None) -> Iterator[ModelOut]:
        """The models that the server recommends, those for `role` or all."""
        return self._each(calls.get("models", role=role), partial(read, ModelOut))

    def upload_model(
        self,
        weights: str | Path,
        architecture: str,
        name: str | None = None,
        *,
        licence: str | None = None,
        on_progress: Progress | None = None,
        patience: float = 300.0,
    ) -> Model:
        """Send a safetensors file; the model, still `processing`.

        It is streamed from disk in one piece; `on_progress` is told how many bytes have left, and
        of how many. `architecture` is timm's name, with or without a tag. Raises DigestError when
        the server has stored something else.
        """
        told = {"name": name, "architecture": architecture, "licence": licence}
        how = How(on_progress, patience=patience)
        return self._driver.run(uploads.upload_model(Path(weights), self._model, how, told))

    def own_models(self) -> Iterator[OwnModelSummary]:
        """The foundations that you have uploaded, the newest first."""
        return self._each(calls.get("models", owned="true"), partial(read, OwnModelSummary))

    def model(self, model_id: str) -> Model:
        """A foundation of your own: status, size and findings."""
        return self._ask(calls.get("models", model_id), self._model)

    def wait_for_model(
        self,
        model_id: str,
        on_change: Callable[[Model], None] | None = None,
        timeout: float | None = None,
        every: float = 0.5,
    ) -> Model:
        """Wait until the model is `ready` or `invalid`. Raises TimeoutError."""
        call, when = calls.get("models", model_id), When(timeout, every, self._patience)
        over = attrgetter("settled")
        return self._driver.run(steps.watch(call, self._model, over, on_change, when))

    def recommend(self, **limits: float | str) -> RecommendationsOut:
        """Students of the catalog by measured latency, and how each stands to the limits.

        `limits` are `max_params`, `max_latency_ms` and `max_file_bytes`; `machine` says where.
        """
        call = calls.get("models", "recommendations", **limits)
        return self._ask(call, partial(read, RecommendationsOut))

    def submit(
        self,
        dataset_id: str,
        foundation: str,
        student: str,
        *,
        options: DistillOptions | Mapping[str, Any] | None = None,
        baselines: Iterable[str] = DEFAULT_BASELINES,
        max_seconds: float | None = None,
        priority: int | None = None,
        queue: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Job:
        """Order a student; the job, `queued`.

        After `max_seconds` of work the job ends with the student so far. `priority` orders your own
        waiting jobs; `queue` is one of the service's; `metadata` is given back as it came.
        """
        call = calls.submit(
            dataset_id,
            foundation,
            student,
            options=options,
            baselines=list(baselines),
            max_seconds=max_seconds,
            priority=priority,
            queue=queue,
            metadata=metadata,
        )
        return self._ask(call, self._job)

    def check(
        self,
        dataset_id: str,
        foundation: str,
        student: str,
        *,
        options: DistillOptions | Mapping[str, Any] | None = None,
        max_seconds: float | None = None,
        **more: Any,
    ) -> DryRunOut:
        """What would become of an order: everything wrong with it, and an estimate.

        `more` is as `submit` takes it. Nothing is stored.
        """
        call = calls.submit(
            dataset_id, foundation, student, options=options, max_seconds=max_seconds, **more
        )
        return self._ask(call.having(params={"dry_run": "true"}), partial(read, DryRunOut))

    def jobs(self, status: str | None = None) -> Iterator[Job]:
        """Your jobs, the newest first, those in one state or all."""
        return self._each(calls.get("jobs", status=status), self._job)

    def job(self, job_id: str) -> Job:
        """A job: status, stage, losses, failure, student."""
        return self._ask(calls.get("jobs", job_id), self._job)

    def wait_for_job(
        self,
        job_id: str,
        on_change: Callable[[Job], None] | None = None,
        timeout: float | None = None,
        every: float = 0.5,
    ) -> Job:
        """Wait until the job has ended; `on_change` is shown what it was in between.

        Raises TimeoutError; the job goes on.
        """
        call, when = calls.get("jobs", job_id), When(timeout, every, self._patience)
        over = attrgetter("ended")
        return self._driver.run(steps.watch(call, self._job, over, on_change, when))

    def events(self, job_id: str, after: int = 0) -> Iterator[EventOut]:
        """The job's log so far, behind event number `after`."""
        call = calls.get("jobs", job_id, "events", limit=100)
        found = self._each(call, partial(read, EventOut))
        return (event for event in found if event.seq > after)

    def stream(self, job_id: str, after: int = 0, every: float = 0.5) -> Iterator[EventOut]:
        """The job's log as it is written, behind event number `after`, until the job has ended."""
        return self._driver.each(events.follow(job_id, after, every=every, patience=self._patience))

    def cancel(self, job_id: str) -> Job:
        """Call a job off."""
        return self._ask(calls.act(job_id, "cancel"), self._job)

    def pause(self, job_id: str) -> Job:
        """Stop a job behind a checkpoint; `pausing`, then `paused`."""
        return self._ask(calls.act(job_id, "pause"), self._job)

    def resume(self, job_id: str) -> Job:
        """Queue a paused job again."""
        return self._ask(calls.act(job_id, "resume"), self._job)

    def retry(self, job_id: str, **changes: Any) -> Job:
        """Order a job anew that failed, was cancelled or ended early; the new job.

        `changes` are a merge patch of the order: `options`, `baselines`, `budget`, `priority`,
        `queue`. Without any, the new job goes on from the old one's checkpoint.
        """
        return self._ask(calls.retry(job_id, changes), self._job)

    def students(self) -> Iterator[StudentSummary]:
        """Your students, the newest first."""
        return self._each(calls.get("students"), partial(read, StudentSummary))

    def student(self, student_id: str) -> Student:
        """A student: accuracy, baselines, metrics and files."""
        return self._ask(calls.get("students", student_id), self._student)

    def predict(
        self, student_id: str, images: Iterable[str | Path], top: int = 5
    ) -> list[PredictionOut]:
        """What images show: for each its `classes`, by calibrated probability."""
        parse = partial(read, PredictionsOut)
        batches = calls.predictions(student_id, images, top)
        return [row for call in batches for row in self._ask(call, parse).predictions]

    def download(
        self,
        student_id: str,
        folder: str | Path,
        *,
        on_progress: Progress | None = None,
        patience: float = 300.0,
    ) -> Path:
        """Fetch every file of a student into a new folder, each checked against its SHA-256.

        The folder appears only when it is complete. What was cut off goes on where it was, after
        trouble that is over within `patience` seconds, or in a later call. `on_progress` is told
        how many bytes are there, and of how many. Raises FileExistsError, and DigestError.
        """
        found = self.student(student_id)
        return self._driver.run(downloads.download(found, Path(folder), on_progress, patience))

    def submit_sweep(
        self,
        dataset_id: str,
        foundation: str,
        students: Iterable[str],
        *,
        options: DistillOptions | Mapping[str, Any] | None = None,
        max_seconds: float | None = None,
        **more: Any,
    ) -> SweepOut:
        """Order many students of one foundation, which sees the images once for all of them.

        `more` is `name`, and what `submit` takes: `baselines`, `priority`, `queue`, `metadata`.
        """
        call = calls.submit_sweep(
            dataset_id, foundation, students, options=options, max_seconds=max_seconds, **more
        )
        return self._ask(call, partial(read, SweepOut))

    def check_sweep(
        self,
        dataset_id: str,
        foundation: str,
        students: Iterable[str],
        *,
        options: DistillOptions | Mapping[str, Any] | None = None,
        max_seconds: float | None = None,
        **more: Any,
    ) -> DryRunOut:
        """What would become of a sweep: everything wrong with it, and an estimate of all jobs.

        `more` is as `submit_sweep` takes it. Nothing is stored.
        """
        call = calls.submit_sweep(
            dataset_id, foundation, students, options=options, max_seconds=max_seconds, **more
        )
        return self._ask(call.having(params={"dry_run": "true"}), partial(read, DryRunOut))

    def sweeps(self) -> Iterator[SweepSummary]:
        """Your sweeps, the newest first."""
        return self._each(calls.get("sweeps"), partial(read, SweepSummary))

    def sweep(self, sweep_id: str) -> SweepOut:
        """A sweep: its jobs, and the Pareto table of what has come of them."""
        return self._ask(calls.get("sweeps", sweep_id), partial(read, SweepOut))

    def cancel_sweep(self, sweep_id: str) -> SweepOut:
        """Call off whatever of a sweep hasn't ended."""
        return self._ask(calls.cancel_sweep(sweep_id), partial(read, SweepOut))

    def estimates(self) -> EstimatesOut:
        """How good the estimates of your newest jobs were."""
        return self._ask(calls.get("estimates"), partial(read, EstimatesOut))

    def delete_dataset(self, dataset_id: str, *, permanently: bool = False) -> None:
        """Delete a dataset that no job needs; for a while it can be restored."""
        self._ask(calls.delete("datasets", dataset_id, permanently), _nothing)

    def restore_dataset(self, dataset_id: str) -> Dataset:
        """Bring a deleted dataset back."""
        return self._ask(calls.restore("datasets", dataset_id), self._dataset)

    def delete_model(self, model_id: str, *, permanently: bool = False) -> None:
        """Delete a foundation of your own that no job needs; for a while it can be restored."""
        self._ask(calls.delete("models", model_id, permanently), _nothing)

    def restore_model(self, model_id: str) -> Model:
        """Bring a deleted model back."""
        return self._ask(calls.restore("models", model_id), self._model)

    def delete_job(self, job_id: str, *, permanently: bool = False) -> None:
        """Delete a job that has ended; for a while it can be restored."""
        self._ask(calls.delete("jobs", job_id, permanently), _nothing)

    def restore_job(self, job_id: str) -> Job:
        """Bring a deleted job back."""
        return self._ask(calls.restore("jobs", job_id), self._job)

    def delete_student(self, student_id: str, *, permanently: bool = False) -> None:
        """Delete a student and its files; for a while it can be restored."""
        self._ask(calls.delete("students", student_id, permanently), _nothing)

    def restore_student(self, student_id: str) -> Student:
        """Bring a deleted student back."""
        return self._ask(calls.restore("students", student_id), self._student)

    def _ask(self, call: Call, parse: Parse[T]) -> T:
        return self._driver.run(steps.ask(call, parse, self._patience))

    def _each(self, call: Call, parse: Parse[T]) -> Iterator[T]:
        return self._driver.each(steps.pages(call, parse, self._patience))


def _nothing(_: Any) -> None:
    """What an answer without a body says."""
