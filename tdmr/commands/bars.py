"""Progress on stderr. Loads rich."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from tdmr.jobdir import ProgressLine, Stage
from tdmr.wire.jobs import JobOut

console = Console(stderr=True)


class StageBars:
    """A bar for each stage of a job, with loss and time left."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> StageBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, line: ProgressLine) -> None:
        """Draw what a process on this machine says."""
        if line.event == "warning":
            self._progress.print(f"[yellow]warning:[/yellow] {line.message}")
        if line.event == "progress" and line.stage is not None:
            self._draw(line.stage, line.losses)

    def show_job(self, job: JobOut) -> None:
        """Draw what the server says."""
        if job.status == "queued" and job.queue_position is not None:
            self._waiting(job)
        elif job.stage is not None:
            self._draw(job.stage, job.losses)
        if job.status == "succeeded":
            self._complete()

    def _waiting(self, job: JobOut) -> None:
        if "queue" not in self._tasks:
            self._tasks["queue"] = self._progress.add_task("queued", total=None, loss="")
        reason = "" if job.waiting_reason is None else f" ({job.waiting_reason})"
        self._progress.update(self._tasks["queue"], loss=f"{job.queue_position}.{reason}")

    def _draw(self, stage: Stage, losses: Mapping[str, float]) -> None:
        name = f"{stage.index}/{stage.count} {stage.name}"
        if name not in self._tasks:
            self._complete()
            self._tasks[name] = self._progress.add_task(name, total=1.0, loss="")
        loss = f"loss {losses['loss']:.3f}" if "loss" in losses else ""
        self._progress.update(self._tasks[name], completed=stage.progress, loss=loss)

    def _complete(self) -> None:
        for task in self._tasks.values():
            self._progress.update(task, total=1.0, completed=1.0)


class ByteBars:
    """A bar for each thing that bytes of are carried."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )

    def __enter__(self) -> ByteBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def bar(self, name: str) -> Callable[[int, int], None]:
        """A new bar, drawn by being told how many bytes are done, and of how many."""
        task: list[TaskID] = []

        def show(done: int, total: int) -> None:
            if not task:
                task.append(self._progress.add_task(name))
            self._progress.update(task[0], completed=done, total=total)

        return show
