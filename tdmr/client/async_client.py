"""The client that is awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

from tdmr.client import calls, downloads, events, steps, uploads
from tdmr.client.async_things import AsyncDataset, AsyncJob, AsyncModel, AsyncStudent
from tdmr.client.calls import Call
from tdmr.client.connection import TIMEOUT, Connection
from tdmr.client.drivers import Awaiting
from tdmr.client.reading import read
from tdmr.client.steps import Parse, When
from tdmr.client.uploads import RESUMABLE_FROM, How, Progress
from tdmr.config import DEFAULT_BASELINES, DistillOptions
from tdmr.wire.datasets import DatasetSummary, ReportOut
from tdmr.wire.jobs import EventOut
from tdmr.wire.models import ModelOut, OwnModelSummary, RecommendationsOut
from tdmr.wire.plans import DryRunOut, EstimatesOut
from tdmr.wire.students import PredictionOut, PredictionsOut, StudentSummary
from tdmr.wire.sweeps import SweepOut, SweepSummary

T = TypeVar("T")


class AsyncClient:
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
        self._http = httpx.AsyncClient(**Connection.find(address, key).arguments(timeout))
        self._driver, self._patience = Awaiting(self._http), patience
        self._job = partial(AsyncJob.of, self)
        self._dataset = partial(AsyncDataset.of, self)
        self._model = partial(AsyncModel.of, self)
        self._student = partial(AsyncStudent.of, self)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def upload_dataset(
        self,
        source: str | Path,
        name: str | None = None,
        *,
        on_progress: Progress | None = None,
        on_packed: Progress | None = None,
        resumable_from: int = RESUMABLE_FROM,
        patience: float = 300.0,
    ) -> AsyncDataset:
        """Send an archive, or a folder packed as one; the dataset, still `processing`.

        See `Client.upload_dataset`.
        """
        how = How(on_progress, on_packed, resumable_from, patience)
        return await self._driver.run(uploads.upload(Path(source), name, self._dataset, how))

    def datasets(self) -> AsyncIterator[DatasetSummary]:
        """Your datasets, the newest first; pages are asked for as they are needed."""
        return self._each(calls.get("datasets"), partial(read, DatasetSummary))

    async def dataset(self, dataset_id: str) -> AsyncDataset:
        """A dataset: status, classes, splits and findings."""
        return await self._ask(calls.get("datasets", dataset_id), self._dataset)

    async def report(self, dataset_id: str) -> ReportOut:
        """Every finding of a dataset's check, and the newest audit of its images, or None."""
        return await self._ask(
            calls.get("datasets", dataset_id, "report"), partial(read, ReportOut)
        )

    async def wait_for_dataset(
        self,
        dataset_id: str,
        on_change: Callable[[AsyncDataset], None] | None = None,
        timeout: float | None = None,
        every: float = 0.5,
    ) -> AsyncDataset:
        """Wait until the dataset is `ready` or `invalid`. Raises TimeoutError."""
        call, when = calls.get("datasets", dataset_id), When(timeout, every, self._patience)
        over = attrgetter("settled")
        return await self._driver.run(steps.watch(call, self._dataset, over, on_change, when))

    def models(self, role: str | None = None) -> AsyncIterator[ModelOut]:
        """The models that the server recommends, those for `role` or all."""
        return self._each(calls.get("models", role=role), partial(read, ModelOut))

    async def upload_model(
        self,
        weights: str | Path,
        architecture: str,
        name: str | None = None,
        *,
        licence: str | None = None,
        on_progress: Progress | None = None,
        patience: float = 300.0,
    ) -> AsyncModel:
        """Send a safetensors file; the model, still `processing`. See `Client.upload_model`."""
        told = {"name": name, "architecture": architecture, "licence": licence}
        how = How(on_progress, patience=patience)
        return await self._driver.run(uploads.upload_model(Path(weights), self._model, how, told))

    def own_models(self) -> AsyncIterator[OwnModelSummary]:
        """The foundations that you have uploaded, the newest first."""
        return self._each(calls.get("models", owned="true"), partial(read, OwnModelSummary))

    async def model(self, model_id: str) -> AsyncModel:
        """A foundation of your own: status, size and findings."""
        return await self._ask(calls.get("models", model_id), self._model)

    async def wait_for_model(
        self,
        model_id: str,
        on_change: Callable[[AsyncModel], None] | None = None,
        timeout: float | None = None,
        every: float = 0.5,
    ) -> AsyncModel:
        """Wait until the model is `ready` or `invalid`. Raises TimeoutError."""
        call, when = calls.get("models", model_id), When(timeout, every, self._patience)
        over = attrgetter("settled")
        return await self._driver.run(steps.watch(call, self._model, over, on_change, when))

    async def recommend(self, **limits: float | str) -> RecommendationsOut:
        """Students of the catalog by measured latency, and how each stands to the limits.

        See `Client.recommend`.
        """
        call = calls.get("models", "recommendations", **limits)
        return await self._ask(call, partial(read, RecommendationsOut))

    async def submit(
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
    ) -> AsyncJob:
        """Order a student; the job, `queued`. See `Client.submit`."""
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
        return await self._ask(call, self._job)

    async def check(
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
        return await self._ask(call.having(params={"dry_run": "true"}), partial(read, DryRunOut))

    def jobs(self, status: str | None = None) -> AsyncIterator[AsyncJob]:
        """Your jobs, the newest first, those in one state or all."""
        return self._each(calls.get("jobs", status=status), self._job)

    async def job(self, job_id: str) -> AsyncJob:
        """A job: status, stage, losses, failure, student."""
        return await self._ask(calls.get("jobs", job_id), self._job)

    async def wait_for_job(
        self,
        job_id: str,
        on_change: Callable[[AsyncJob], None] | None = None,
        timeout: float | None = None,
        every: float = 0.5,
    ) -> AsyncJob:
        """Wait until the job has ended; `on_change` is shown what it was in between.

        See `Client.wait_for_job`.
        """
        call, when = calls.get("jobs", job_id), When(timeout, every, self._patience)
        over = attrgetter("ended")
        return await self._driver.run(steps.watch(call, self._job, over, on_change, when))

    def events(self, job_id: str, after: int = 0) -> AsyncIterator[EventOut]:
        """The job's log so far, behind event number `after`."""
        call = calls.get("jobs", job_id, "events", limit=100)
        found = self._each(call, partial(read, EventOut))
        return (event async for event in found if event.seq > after)

    def stream(self, job_id: str, after: int = 0, every: float = 0.5) -> AsyncIterator[EventOut]:
        """The job's log as it is written, behind event number `after`, until the job has ended."""
        return self._driver.each(events.follow(job_id, after, every=every, patience=self._patience))

    async def cancel(self, job_id: str) -> AsyncJob:
        """Call a job off."""
        return await self._ask(calls.act(job_id, "cancel"), self._job)

    async def pause(self, job_id: str) -> AsyncJob:
        """Stop a job behind a checkpoint; `pausing`, then `paused`."""
        return await self._ask(calls.act(job_id, "pause"), self._job)

    async def resume(self, job_id: str) -> AsyncJob:
        """Queue a paused job again."""
        return await self._ask(calls.act(job_id, "resume"), self._job)

    async def retry(self, job_id: str, **changes: Any) -> AsyncJob:
        """Order a job anew that failed, was cancelled or ended early; the new job.

        See `Client.retry`.
        """
        return await self._ask(calls.retry(job_id, changes), self._job)

    def students(self) -> AsyncIterator[StudentSummary]:
        """Your students, the newest first."""
        return self._each(calls.get("students"), partial(read, StudentSummary))

    async def student(self, student_id: str) -> AsyncStudent:
        """A student: accuracy, baselines, metrics and files."""
        return await self._ask(calls.get("students", student_id), self._student)

    async def predict(
        self, student_id: str, images: Iterable[str | Path], top: int = 5
    ) -> list[PredictionOut]:
        """What images show: for each its `classes`, by calibrated probability."""
        parse = partial(read, PredictionsOut)
        batches = calls.predictions(student_id, images, top)
        return [row for call in batches for row in (await self._ask(call, parse)).predictions]

    async def download(
        self,
        student_id: str,
        folder: str | Path,
        *,
        on_progress: Progress | None = None,
        patience: float = 300.0,
    ) -> Path:
        """Fetch every file of a student into a new folder, each checked against its SHA-256.

        See `Client.download`.
        """
        found = await self.student(student_id)
        return await self._driver.run(
            downloads.download(found, Path(folder), on_progress, patience)
        )

    async def submit_sweep(
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
        return await self._ask(call, partial(read, SweepOut))

    async def check_sweep(
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
        return await self._ask(call.having(params={"dry_run": "true"}), partial(read, DryRunOut))

    def sweeps(self) -> AsyncIterator[SweepSummary]:
        """Your sweeps, the newest first."""
        return self._each(calls.get("sweeps"), partial(read, SweepSummary))

    async def sweep(self, sweep_id: str) -> SweepOut:
        """A sweep: its jobs, and the Pareto table of what has come of them."""
        return await self._ask(calls.get("sweeps", sweep_id), partial(read, SweepOut))

    async def cancel_sweep(self, sweep_id: str) -> SweepOut:
        """Call off whatever of a sweep hasn't ended."""
        return await self._ask(calls.cancel_sweep(sweep_id), partial(read, SweepOut))

    async def estimates(self) -> EstimatesOut:
        """How good the estimates of your newest jobs were."""
        return await self._ask(calls.get("estimates"), partial(read, EstimatesOut))

    async def delete_dataset(self, dataset_id: str, *, permanently: bool = False) -> None:
        """Delete a dataset that no job needs; for a while it can be restored."""
        await self._ask(calls.delete("datasets", dataset_id, permanently), _nothing)

    async def restore_dataset(self, dataset_id: str) -> AsyncDataset:
        """Bring a deleted dataset back."""
        return await self._ask(calls.restore("datasets", dataset_id), self._dataset)

    async def delete_model(self, model_id: str, *, permanently: bool = False) -> None:
        """Delete a foundation of your own that no job needs; for a while it can be restored."""
        await self._ask(calls.delete("models", model_id, permanently), _nothing)

    async def restore_model(self, model_id: str) -> AsyncModel:
        """Bring a deleted model back."""
        return await self._ask(calls.restore("models", model_id), self._model)

    async def delete_job(self, job_id: str, *, permanently: bool = False) -> None:
        """Delete a job that has ended; for a while it can be restored."""
        await self._ask(calls.delete("jobs", job_id, permanently), _nothing)

    async def restore_job(self, job_id: str) -> AsyncJob:
        """Bring a deleted job back."""
        return await self._ask(calls.restore("jobs", job_id), self._job)

    async def delete_student(self, student_id: str, *, permanently: bool = False) -> None:
        """Delete a student and its files; for a while it can be restored."""
        await self._ask(calls.delete("students", student_id, permanently), _nothing)

    async def restore_student(self, student_id: str) -> AsyncStudent:
        """Bring a deleted student back."""
        return await self._ask(calls.restore("students", student_id), self._student)

    async def _ask(self, call: Call, parse: Parse[T]) -> T:
        return await self._driver.run(steps.ask(call, parse, self._patience))

    def _each(self, call: Call, parse: Parse[T]) -> AsyncIterator[T]:
        return self._driver.each(steps.pages(call, parse, self._patience))


def _nothing(_: Any) -> None:
    """What an answer without a body says."""
