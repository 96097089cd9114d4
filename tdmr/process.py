"""The processes that a worker starts on a JOB_DIR (`tdmr.jobdir`). Torch loads when called for.

Each function gives the process's exit status. 0: the result is in out/. 1: progress.jsonl ends
with the failure. STOPPED_STATUS: `stopping` said so, and the same can be started again.
"""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tdmr import bundle, lines, own, spans, stages, trained
from tdmr.api import load_recipe, packaged, result_in
from tdmr.config import JobSpec
from tdmr.errors import Failure, Stopped, TdmrError
from tdmr.jobdir import CHECKPOINT_SECONDS, STOPPED_STATUS, JobDir, ProgressLine, Reporter

Stopping = Callable[[], bool]
# Stages that a stop begins again.
UNSAVED = ("prepare", "cache", "rescue", "package", stages.PACKAGE)


def never() -> bool:
    """For a process that nobody stops."""
    return False


def told_to_stop(*, patient: bool = False) -> Stopping:
    """Whether SIGTERM has asked this process to stop, from now on.

    A second one ends it at once, unless it is `patient`.
    """
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        asked.set()
        if not patient:
            signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, ask)
    return asked.is_set


def run_job(
    path: Path,
    *,
    device: str,
    cache: Path,
    package: bool = True,
    stopping: Stopping = never,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    number: int | None = None,
) -> int:
    """Run the job in JOB_DIR `path`, or go on with it.

    Without `package`, out/ is what was trained. What a stopped run goes on from is in checkpoint/.
    A job that wants several devices is run by as many processes (`tdmr.several`), of which this is
    one if it has a `number`.
    """
    count = _processes(path) if number is None else 1
    if count > 1:
        from tdmr import several

        given = {"device": device, "cache": cache, "package": package}
        return several.run_job(
            path, count, stopping, checkpoint_seconds=checkpoint_seconds, **given
        )
    with _working(path, "prepare", stopping, number=number or 0) as work:
        job, reporter = work.job, work.reporter
        spec = JobSpec.model_validate_json(job.config.read_bytes())
        run = load_recipe()
        reporter.stages = stages.of_job(spec.baselines, package=package)
        checkpoints = run.Checkpoints(
            job.checkpoint,
            every=checkpoint_seconds,
            stopping=stopping,
            on_saved=reporter.checkpoint,
        )
        train = partial(
            run.run,
            spec,
            job.data,
            cache=cache,
            device=run.pick_device(device),
            reporter=reporter,
            checkpoints=checkpoints,
        )
        reporter.done(work.result(train, cache, package=package))
    if work.status == 0 and not job.number:
        checkpoints.clear()
    return work.status


def _processes(path: Path) -> int:
    """How many are to run the job; 1 where config.json is wrong, which the run then says."""
    try:
        return JobSpec.model_validate_json(JobDir(path).config.read_bytes()).options.devices
    except (OSError, ValidationError):
        return 1


def package_job(path: Path, *, cache: Path, stopping: Stopping = never) -> int:
    """Make a bundle of what was trained, which is in trained/, and of its dataset, in data/."""
    with _working(path, "package", stopping, keep_trained=True) as work:
        job, reporter = work.job, work.reporter
        reporter.start("package")
        load_recipe().use_threads(trained.read(job.trained).spec)
        reporter.done(
            bundle.package(
                job.trained,
                job.out,
                data=job.data,
                cache=cache,
                on_step=reporter.step,
                warn=reporter.warn,
            )
        )
    return work.status


def rescue_job(
    path: Path, *, device: str, cache: Path, package: bool = True, stopping: Stopping = never
) -> int:
    """Take the student out of checkpoint/, without training; `package` as for `run_job`."""
    with _working(path, "prepare", stopping) as work:
        job, reporter = work.job, work.reporter
        spec = JobSpec.model_validate_json(job.config.read_bytes())
        run = load_recipe()
        from tdmr import rescue

        reporter.stages = stages.of_rescue(package=package)
        take = partial(
            rescue.rescue,
            spec,
            job.data,
            cache=cache,
            device=run.pick_device(device),
            reporter=reporter,
            checkpoints=run.Checkpoints(job.checkpoint),
        )
        reporter.done(work.result(take, cache, package=package))
    return work.status


@dataclass
class _Work:
    job: JobDir
    reporter: Reporter
    status: int = 0

    def result(
        self, train: Callable[[Path], dict[str, Any]], cache: Path, *, package: bool
    ) -> dict[str, Any]:
        """Leave in out/ what `train` leaves in the folder it is given, packaged or as it is."""
        job = self.job
        if not package or job.number:  # one of several packages what all have trained
            return train(job.out)
        return packaged(
            train, job.trained, job.out, data=job.data, cache=cache, reporter=self.reporter
        )


@contextmanager
def _working(
    path: Path, first: str, stopping: Stopping, *, keep_trained: bool = False, number: int = 0
) -> Iterator[_Work]:
    """A block's work in JOB_DIR `path`; how it ended is told in progress.jsonl and in `status`."""
    job = JobDir(path, number)
    work = _Work(job, Reporter(job, [first]))
    if not number:
        work.reporter.listeners += [lines.teller(), spans.of_stages()]
        work.reporter.listeners.append(lambda line: _stop_between(line, stopping))
    try:
        # What an earlier process didn't finish.
        for folder in (job.out,) if keep_trained else (job.out, job.trained):
            shutil.rmtree(folder, ignore_errors=True)
        with result_in(job.out, work.reporter), own.offered(job.models):
            yield work
    except Stopped as stop:
        work.reporter.stopped(stop)
        work.status = STOPPED_STATUS
    except Exception as error:  # what isn't the user's to change is raised again
        failure = _failure(error, work.reporter.stage)
        if failure is None:
            raise
        work.reporter.failed(failure)
        work.status = 1


def _stop_between(line: ProgressLine, stopping: Stopping) -> None:
    """Stop where no step of a training asks: between stages, and in those that aren't saved."""
    if line.event != "progress" or line.stage is None or not stopping():
        return
    if line.step is None or line.stage.name in UNSAVED:
        raise Stopped(line.stage.name, line.step or 0)


def _failure(error: Exception, stage: str) -> Failure | None:
    """The record of an error that somebody can do something about; None for any other."""
    if isinstance(error, TdmrError):
        return error.failure(stage)
    if isinstance(error, ValidationError):
        return Failure(code="options", user_error=True, stage="prepare", detail=str(error))
    return None
