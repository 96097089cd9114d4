"""JOB_DIR: the whole hand-over between a worker and the process that trains.

config.json     in    the job (`tdmr.config.JobSpec` for a distillation); `package` needs none
data/           in    the dataset
models/         in    a foundation of the owner's own, where the job names one (`tdmr.own`)
progress.jsonl  back  one `ProgressLine` per line, appended and flushed
log.txt         back  what the process printed
out/            back  the result; complete if and only if the last line says `done`
checkpoint/     own   what a process started on the same JOB_DIR goes on from
trained/        own   what was trained (`tdmr.trained`), until it is packaged; for `package`: in
processes/      own   of several processes (`tdmr.several`), what all but the first would write

    python -m tdmr run JOB_DIR      train, and package: out/ is the bundle (`tdmr.bundle`).
                                    With --no-package, out/ is what was trained.
    python -m tdmr package JOB_DIR  package what was trained: out/ is the bundle.
    python -m tdmr rescue JOB_DIR   take the student out of checkpoint/ as it is, without training,
                                    and package it. checkpoint/ stays as it is.
    python -m tdmr check-model JOB_DIR  whether the one in models/ can be a foundation: out/ has a
                                    report (`tdmr.own`). It needs no data/.

A `checkpoint` line names a file in checkpoint/ that is durable now, and the step that comes next.
Such a file is replaced as a whole and never changed: what copies it elsewhere gets a whole one.

Each process ends with status 0 behind `done`, 1 behind `failed`, and STOPPED_STATUS behind
`stopped`: SIGTERM asked it to stop, and it can be started again. A second SIGTERM ends it at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tdmr import failpoint
from tdmr.errors import Failure, Stopped, is_disk_full

AUDIT = "audit.json"  # in out/: what the foundation says of the dataset (`tdmr.audit`)
STOPPED_STATUS = 75  # EX_TEMPFAIL of sysexits.h
CHECKPOINT_SECONDS = 60.0  # between two checkpoints, unless said otherwise
MEASURES = ("accuracy", "learning_rate")  # told with the losses, and no losses
PASSING = ("progress", "checkpoint")  # events that another of their kind makes up for


class Stage(BaseModel):
    """Where a job is: the stage's name, its place among all, and how far it has come (0 to 1)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    index: int
    count: int
    progress: float


class ProgressLine(BaseModel):
    """One line of progress.jsonl."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    event: Literal["progress", "checkpoint", "warning", "done", "failed", "stopped"]
    stage: Stage | None = None
    step: int | None = None
    steps: int | None = None
    losses: dict[str, float] = {}
    measures: dict[str, float] = {}
    eta_seconds: float | None = None
    message: str | None = None
    failure: Failure | None = None
    checkpoint: str | None = None
    result: dict[str, Any] | None = None


class JobDir:
    """Names the files of a job directory, and reads and writes its progress.

    `number` is the process's among several that run one job; all but the first, 0, read the same
    files and write others.
    """

    def __init__(self, path: Path, number: int = 0) -> None:
        self.path, self.number = path, number
        self.processes = path / "processes"
        own = self.processes / str(number) if number else path
        self.config = path / "config.json"
        self.data = path / "data"
        self.models = path / "models"
        self.progress = own / "progress.jsonl"
        self.log = path / "log.txt"
        self.out = own / "out"
        self.checkpoint = path / "checkpoint"
        self.trained = own / "trained"
        if number:
            own.mkdir(parents=True, exist_ok=True)

    def append(self, line: ProgressLine) -> None:
        """Add one line. Readers wait for the newline, so they see it whole or not at all."""
        raw = line.model_dump_json(exclude_none=True).encode() + b"\n"
        with self.progress.open("a+b") as file:
            if file.tell() and _last_byte(file) != b"\n":
                raw = b"\n" + raw  # a killed process, or a full disk, tore the line before
            file.write(raw)

    def read(self, offset: int = 0) -> Iterator[tuple[int, ProgressLine]]:
        """Every complete line from byte `offset` on, each with the offset behind it.

        A line that isn't one of ours is passed over: the rest still counts.
        """
        if not self.progress.exists():
            return
        with self.progress.open("rb") as file:
            file.seek(offset)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return
                offset += len(raw)
                with suppress(ValidationError):
                    yield offset, ProgressLine.model_validate_json(raw)

    def last(self, offset: int = 0) -> ProgressLine | None:
        """The last complete line from byte `offset` on, if there is any."""
        return max(self.read(offset), default=(0, None), key=itemgetter(0))[1]

    def log_tail(self, lines: int = 20) -> list[str]:
        """The last `lines` lines that the process printed (at most 8 KiB of them)."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 8192))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


class Reporter:
    """Reports a run's progress: at most one progress line per `interval` seconds and stage.

    `stages` are the names of all stages, in order; they can be replaced before the first starts.
    """

    def __init__(self, job: JobDir | None, stages: list[str], interval: float = 0.5) -> None:
        self._job = job
        self.stages = stages
        self._interval = interval
        self._stage = stages[0]
        self._progress = self._last = 0.0
        self._steps: int | None = None
        self._first: tuple[int, float] | None = None  # the first step seen here, and when
        self.listeners: list[Callable[[ProgressLine], None]] = []

    def start(self, stage: str) -> None:
        """Enter a stage, which must be one of those announced."""
        self._stage = stage
        self._progress = self._last = 0.0
        self._steps = self._first = None
        self._emit(ProgressLine(event="progress", stage=self._where(0.0)))

    def step(self, step: int, steps: int, numbers: dict[str, float] | None = None) -> None:
        """Report step `step` of `steps` in this stage; most calls return without writing.

        `numbers` are the step's losses, and what MEASURES names.
        """
        now = time.monotonic()
        self._progress, self._steps = step / steps if steps else 1.0, steps
        # A resumed stage doesn't begin at step 0: what is left is judged by what was done here.
        first, since = self._first = self._first or (step, now)
        if now - self._last < self._interval and step != steps:
            return
        self._last = now
        told = numbers or {}
        eta = (now - since) / (step - first) * (steps - step) if step > first else None
        self._emit(
            ProgressLine(
                event="progress",
                stage=self._where(self._progress),
                step=step,
                steps=steps,
                losses={name: x for name, x in told.items() if name not in MEASURES},
                measures={name: told[name] for name in MEASURES if name in told},
                eta_seconds=None if eta is None else round(eta, 1),
            )
        )

    def checkpoint(self, stage: str, name: str, step: int) -> None:
        """The file `name` in checkpoint/ is durable; `step` is the next to do in `stage`."""
        progress = step / self._steps if self._steps else self._progress
        self._emit(
            ProgressLine(
                event="checkpoint",
                stage=self._where(progress, stage),
                step=step,
                steps=self._steps,
                checkpoint=name,
            )
        )

    def warn(self, message: str) -> None:
        """Say something that the user should know and that doesn't stop the run."""
        self._emit(ProgressLine(event="warning", stage=self._where(0.0), message=message))

    def done(self, result: dict[str, Any]) -> None:
        """The result is complete and on disk."""
        failpoint.reached("result.written")
        self._emit(ProgressLine(event="done", result=result))
        failpoint.reached("result.said")

    def failed(self, failure: Failure) -> None:
        """The run ends here, and this is why."""
        self._emit(ProgressLine(event="failed", failure=failure))

    def stopped(self, stop: Stopped) -> None:
        """The run was asked to stop, and can be gone on with."""
        where = self._where(self._progress)
        self._emit(ProgressLine(event="stopped", stage=where, step=stop.step, message=str(stop)))

    @property
    def stage(self) -> str:
        """The stage that the run is in."""
        return self._stage

    def _where(self, progress: float, stage: str | None = None) -> Stage:
        name = stage or self._stage
        index = self.stages.index(name)
        return Stage(
            name=name, index=index + 1, count=len(self.stages), progress=round(progress, 4)
        )

    def _emit(self, line: ProgressLine) -> None:
        if self._job is not None:
            try:
                self._job.append(line)
            except OSError as error:
                # A line of progress less is no reason to lose a training.
                if line.event not in PASSING or not is_disk_full(error):
                    raise
        for listener in self.listeners:
            listener(line)
