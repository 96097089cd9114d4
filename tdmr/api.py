"""Local use: `tdmr.distill`, and the process that a worker starts. Torch loads when called."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tdmr.config import Baseline, DistillOptions, JobSpec
from tdmr.errors import Failure, OptionsError, TdmrError
from tdmr.jobdir import JobDir, ProgressLine, Reporter

BASELINES: tuple[Baseline, ...] = ("scratch", "probe", "kd")


@dataclass(frozen=True)
class Distilled:
    """A finished student: its folder, and what metrics.json in it says."""

    bundle: Path
    metrics: dict[str, Any]

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
    baselines: Iterable[Baseline] = BASELINES,
    cache: str | Path | None = None,
    device: str = "auto",
    on_progress: Callable[[ProgressLine], None] | None = None,
) -> Distilled:
    """Distil `foundation` into `student` for the classes of `data`, and write a bundle to `out`.

    `data` is a folder of class folders, with or without train/ and test/ above them. `foundation`
    and `student` are timm names, the bundled `letters_vit`, or `local-dir:FOLDER` with a timm
    folder of safetensors. `cache` keeps the foundation's features for later runs (default: a
    folder beside `out`). `out` must not exist; it appears when it is complete.

    Raises TdmrError: UnknownModelError, ModelWeightsError, DatasetError, OptionsError,
    NonFiniteLossError or DiskFullError, each saying what to change.
    """
    target = Path(out)
    if target.exists():
        raise OptionsError(f"{str(target)!r} exists already.", suggestion="Choose a new folder.")
    spec = JobSpec(
        foundation=foundation,
        student=student,
        options=options or DistillOptions(),
        baselines=tuple(baselines),
    )
    run = _load_recipe()
    reporter = Reporter(None, run.stages(spec))
    if on_progress:
        reporter.listeners.append(on_progress)
    staged = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    try:
        metrics = run.run(
            spec,
            Path(data),
            staged,
            cache=Path(cache) if cache else target.parent / ".tdmr-cache",
            device=run.pick_device(device),
            reporter=reporter,
        )
        staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Distilled(target, metrics)


def run_job(path: Path, *, device: str, cache: Path) -> int:
    """Run the job in JOB_DIR `path`; give the process's exit status.

    0: the result is in out/. 1: progress.jsonl ends with the failure.
    """
    from pydantic import ValidationError

    job = JobDir(path)
    reporter = Reporter(job, ["prepare"])
    try:
        spec = JobSpec.model_validate_json(job.config.read_bytes())
        run = _load_recipe()
        reporter = Reporter(job, run.stages(spec))
        metrics = run.run(
            spec,
            job.data,
            job.out,
            cache=cache,
            device=run.pick_device(device),
            reporter=reporter,
        )
    except TdmrError as error:
        reporter.failed(error.failure(reporter.stage))
    except ValidationError as error:
        reporter.failed(
            Failure(code="options", user_error=True, stage="prepare", detail=str(error))
        )
    except MemoryError:
        reporter.failed(out_of_memory(reporter.stage))
    except RuntimeError as error:
        # torch has no common out-of-memory type on every device; its words are all there is.
        if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        reporter.failed(out_of_memory(reporter.stage))
    else:
        reporter.done(metrics)
        return 0
    return 1


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
