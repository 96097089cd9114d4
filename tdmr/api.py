"""Local use: `tdmr.distill`, and the process that a worker starts. Torch loads when called."""

from __future__ import annotations

import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from tdmr.config import DEFAULT_BASELINES, Baseline, DistillOptions, JobSpec
from tdmr.errors import DatasetWarning, Failure, OptionsError, Stopped, TdmrError, room_for
from tdmr.jobdir import CHECKPOINT_SECONDS, STOPPED_STATUS, JobDir, ProgressLine, Reporter

UNSAVED = ("prepare", "cache")  # stages that a stop begins again


@dataclass(frozen=True)
class Distilled:
    """A finished student: its folder, and what metrics.json in it says.

    `reports` is False in all processes but the first of several under torchrun.
    """

    bundle: Path
    metrics: dict[str, Any]
    reports: bool = True

    @property
    def accuracy(self) -> float:
        """Share of the held-out images classified right, 0 to 1."""
        return float(self.metrics["accuracy"])

    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95 % Wilson interval."""
        low, high = self.metrics["interval"]
        return float(low), float(high)


def distill(
    data: str | Path,
    *,
    foundation: str,
    student: str,
    out: str | Path,
    options: DistillOptions | None = None,
    baselines: Iterable[Baseline] = DEFAULT_BASELINES,
    cache: str | Path | None = None,
    device: str = "auto",
    checkpoint: str | Path | None = None,
    on_progress: Callable[[ProgressLine], None] | None = None,
) -> Distilled:
    """Distil `foundation` into `student` for the classes of `data`, and write a bundle to `out`.

    `data` is a folder of class folders, with or without train/ and test/ above them. `foundation`
    and `student` are timm names, one of the bundled `letters_*`, `local-dir:FOLDER` with a timm
    folder of safetensors, or `safetensors:ARCHITECTURE@FILE` with weights of your own. `cache`
    keeps the foundation's features for later runs (default: a folder beside `out`). `out` must not
    exist; it appears when it is complete. Under torchrun, every process calls this and returns the
    same; the first reports and writes.

    `checkpoint` is a folder of this run's own: its state is written there about once a minute, the
    same call goes on from it after an interruption, and on a CPU the student is the same to the
    bit. What was written is removed when `out` is complete, and kept when an error is raised.

    Raises TdmrError: UnknownModelError, ModelWeightsError, DatasetError, OptionsError,
    NonFiniteLossError, DiskFullError or CheckpointError, each saying what to change.
    """
    target = Path(out)
    if target.exists():
        raise OptionsError(f"{str(target)!r} exists already.", suggestion="Choose a new folder.")
    chosen = options or DistillOptions()
    spec = JobSpec(
        foundation=foundation, student=student, options=chosen, baselines=tuple(baselines)
    )
    run = _load_recipe()
    where = run.pick_device(device)
    world = run.distributed.join(where)
    reporter = Reporter(None, run.stages(spec))
    if on_progress and world.main:
        reporter.listeners.append(on_progress)
    checkpoints = run.Checkpoints(Path(checkpoint) if checkpoint else None)
    with _result(target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}", reporter) as staged:
        metrics = run.run(
            spec,
            Path(data),
            staged,
            cache=Path(cache) if cache else target.parent / ".tdmr-cache",
            device=where,
            reporter=reporter,
            checkpoints=checkpoints,
        )
        with world.main_first():
            _publish(staged, target, main=world.main)
    if world.main:
        checkpoints.clear()
    return Distilled(target, metrics, world.main)


def _publish(staged: Path, target: Path, *, main: bool) -> None:
    """Let the bundle appear; of several processes' bundles, which are the same, the main one's."""
    if main:
        staged.rename(target)
    else:
        shutil.rmtree(staged)


def run_job(
    path: Path,
    *,
    device: str,
    cache: Path,
    stopping: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> int:
    """Run the job in JOB_DIR `path`, or go on with it; give the process's exit status.

    0: the result is in out/. 1: progress.jsonl ends with the failure. STOPPED_STATUS: `stopping`
    said so, and checkpoint/ holds what the next run on this JOB_DIR goes on from.
    """
    job = JobDir(path)
    reporter = Reporter(job, ["prepare"])
    try:
        shutil.rmtree(job.out, ignore_errors=True)  # what an earlier run didn't finish
        spec = JobSpec.model_validate_json(job.config.read_bytes())
        run = _load_recipe()
        reporter = Reporter(job, run.stages(spec))
        reporter.listeners.append(lambda line: _stop_between(line, stopping))
        checkpoints = run.Checkpoints(job.checkpoint, every=checkpoint_seconds, stopping=stopping)
        with _result(job.out, reporter):
            metrics = run.run(
                spec,
                job.data,
                job.out,
                cache=cache,
                device=run.pick_device(device),
                reporter=reporter,
                checkpoints=checkpoints,
            )
            reporter.done(metrics)
    except Stopped as stop:
        reporter.stopped(stop)
        return STOPPED_STATUS
    except Exception as error:
        failure = _failure(error, reporter.stage)
        if failure is None:
            raise
        reporter.failed(failure)
        return 1
    checkpoints.clear()
    return 0


def _stop_between(line: ProgressLine, stopping: Callable[[], bool]) -> None:
    """Stop where no step of a training asks: between stages, and in those before the first."""
    if line.event != "progress" or line.stage is None or not stopping():
        return
    if line.step is None or line.stage.name in UNSAVED:
        raise Stopped(line.stage.name, line.step or 0)


@contextmanager
def _result(folder: Path, reporter: Reporter) -> Iterator[Path]:
    """A folder that is gone if the block fails; what the dataset warns of is reported."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", DatasetWarning)
        show = warnings.showwarning

        def report(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if issubclass(category, DatasetWarning):
                reporter.warn(str(message))
            else:
                show(message, category, *where)

        warnings.showwarning = report  # type: ignore[assignment] # it passes `where` on as it came
        with room_for("the result", folder.parent):
            try:
                yield folder
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise


def _failure(error: Exception, stage: str) -> Failure | None:
    """The record of an error that the user can do something about; None for any other."""
    if isinstance(error, TdmrError):
        return error.failure(stage)
    if isinstance(error, ValidationError):
        return Failure(code="options", user_error=True, stage="prepare", detail=str(error))
    # torch has no common out-of-memory type on every device; its words are all there is.
    words = ("out of memory", "can't allocate memory")
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    ):
        return out_of_memory(stage)
    return None


def _load_recipe() -> ModuleType:
    """Load torch, and what needs it."""
    # OpenMP threads that spin at a barrier cost a shared machine 10 times what they save.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from tdmr import run

    return run


def out_of_memory(stage: str) -> Failure:
    """The failure of a run that didn't fit."""
    return Failure(
        code="out_of_memory",
        user_error=True,
        stage=stage,
        detail="The models and a batch of images don't fit into the device's memory.",
        suggestion="Halve options.training.batch_size, or choose a smaller image_size.",
    )
