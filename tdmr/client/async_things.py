"""Datasets, jobs and students of the client that is awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmr.client.bound import BoundDataset, BoundJob, BoundModel, BoundStudent
from tdmr.client.uploads import Progress
from tdmr.wire.datasets import ReportOut
from tdmr.wire.jobs import EventOut
from tdmr.wire.students import PredictionOut

if TYPE_CHECKING:
    from tdmr.client.async_client import AsyncClient


class AsyncDataset(BoundDataset):
    """A dataset as it was when the server was asked."""

    _client: AsyncClient

    async def refresh(self) -> AsyncDataset:
        """The dataset as it is now."""
        return await self._client.dataset(self.id)

    async def wait(
        self,
        on_change: Callable[[AsyncDataset], None] | None = None,
        timeout: float | None = None,
        every: float = 0.5,
    ) -> AsyncDataset:
        """The dataset once it is `ready` or `invalid`. Raises TimeoutError."""
        return await self._client.wait_for_dataset(self.id, on_change, timeout, every)

    async def report(self) -> ReportOut:
        """Every finding of its check, and the newest audit of its images."""
        return await self._client.report(self.id)


class AsyncModel(BoundModel):
    """A foundation of your own as it was when the server was asked."""

    _client: AsyncClient

    async def refresh(self) -> AsyncModel:
        """The model as it is now."""
        return await self._client.model(self.id)

    async def wait(
        self,
        on_change: Callable[[AsyncModel], None] | None = None,
        timeout: float | None = None,
        every: float = 0.5,
    ) -> AsyncModel:
        """The model once it is `ready` or `invalid`. Raises TimeoutError."""
        return await self._client.wait_for_model(self.id, on_change, timeout, every)


class AsyncJob(BoundJob):
    """A job as it was when the server was asked."""

    _client: AsyncClient

    async def refresh(self) -> AsyncJob:
        """The job as it is now."""
        return await self._client.job(self.id)

    async def wait(
        self,
        on_change: Callable[[AsyncJob], None] | None = None,
        timeout: float | None = None,
        every: float = 0.5,
    ) -> AsyncJob:
        """The job once it has ended. Raises TimeoutError; it goes on."""
        return await self._client.wait_for_job(self.id, on_change, timeout, every)

    def stream(self, after: int = 0) -> AsyncIterator[EventOut]:
        """Its log as it is written, behind event number `after`, until it has ended."""
        return self._client.stream(self.id, after)

    async def cancel(self) -> AsyncJob:
        """Call it off."""
        return await self._client.cancel(self.id)

    async def pause(self) -> AsyncJob:
        """Stop it behind a checkpoint."""
        return await self._client.pause(self.id)

    async def resume(self) -> AsyncJob:
        """Queue it again."""
        return await self._client.resume(self.id)

    async def retry(self, **changes: Any) -> AsyncJob:
        """Order it anew, with changes if you like; the new job."""
        return await self._client.retry(self.id, **changes)

    async def fetch_student(self) -> AsyncStudent:
        """The student that it has made (`student` is the architecture). Raises LookupError."""
        made = self if self.student_id is not None else await self.refresh()
        return await self._client.student(made.student_made())


class AsyncStudent(BoundStudent):
    """A student as it was when the server was asked."""

    _client: AsyncClient

    async def download(
        self, folder: str | Path, *, on_progress: Progress | None = None, patience: float = 300.0
    ) -> Path:
        """Fetch every file into a new folder; see `AsyncClient.download`."""
        return await self._client.download(
            self.id, folder, on_progress=on_progress, patience=patience
        )

    async def predict(self, images: Iterable[str | Path], top: int = 5) -> list[PredictionOut]:
        """What images show: for each its `classes`, by calibrated probability."""
        return await self._client.predict(self.id, images, top)
