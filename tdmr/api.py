"""Local use: `tdmr.distill`. Torch loads when it is called."""

from __future__ import annotations

import json
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tdmr import bundle, stages
from tdmr.config import DEFAULT_BASELINES, Baseline, DistillOptions, JobSpec
from tdmr.errors import (
    DatasetWarning,
    OptionsError,
    OutOfMemoryError,
    is_out_of_memory,
    room_for,
)
from tdmr.jobdir import ProgressLine, Reporter

if TYPE_CHECKING:
    from tdmr.distributed import World


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
    NonFiniteLossError, OutOfMemoryError, DiskFullError or CheckpointError, each saying what to
    change.
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
    run = load_recipe()
    where = run.pick_device(device)
    world = run.distributed.join(where)
    _expect(spec.options.devices, world)
    reporter = Reporter(None, stages.of_job(spec.baselines))
    if on_progress and world.main:
        reporter.listeners.append(on_progress)
    checkpoints = run.Checkpoints(Path(checkpoint) if checkpoint else None)
    kept = Path(cache) if cache else target.parent / ".tdmr-cache"
    shared = {"cache": kept, "device": where, "reporter": reporter, "checkpoints": checkpoints}
    train = partial(run.run, spec, Path(data), **shared)
    with result_in(target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}", reporter) as staged:
        trained = staged.with_name(f"{staged.name}.trained")
        if not world.main:
            return _beside_the_first(train, trained, target, world)
        metrics = packaged(train, trained, staged, data=Path(data), cache=kept, reporter=reporter)
        staged.rename(target)
        world.barrier()
    checkpoints.clear()
    return Distilled(target, metrics)


def _expect(devices: int, world: World) -> None:
    """Raise OptionsError where options.devices isn't what torchrun has started."""
    if devices not in (1, world.size):
        raise OptionsError(
            f"options.devices is {devices}, and the number of processes is {world.size}.",
            suggestion=f"Start it by torchrun --nproc-per-node {devices}, or leave it out.",
        )


def _beside_the_first(
    train: Callable[[Path], dict[str, Any]], trained: Path, target: Path, world: World
) -> Distilled:
    """What the other processes do: they have all trained the same student, and one packages it."""
    try:
        metrics = train(trained)
    finally:
        shutil.rmtree(trained, ignore_errors=True)
    world.barrier()
    published = target / bundle.METRICS
    if published.exists():  # it does unless this is another host with another disk
        metrics = json.loads(published.read_bytes())
    return Distilled(target, metrics, reports=False)


@contextmanager
def result_in(folder: Path, reporter: Reporter) -> Iterator[Path]:
    """A folder that is gone if the block fails; what the dataset warns of is reported.

    A full disk and a lack of memory become DiskFullError and OutOfMemoryError.
    """
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
            except BaseException as error:  # nothing half-written stays, however it ends
                shutil.rmtree(folder, ignore_errors=True)
                if is_out_of_memory(error):
                    raise OutOfMemoryError(reporter.stage) from error
                raise


def packaged(
    train: Callable[[Path], dict[str, Any]],
    trained: Path,
    out: Path,
    *,
    data: Path,
    cache: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    """Make the bundle `out` of what `train` leaves in `trained`, which is gone afterwards."""
    try:
        train(trained)
        reporter.start(stages.PACKAGE)
        return bundle.package(
            trained, out, data=data, cache=cache, on_step=reporter.step, warn=reporter.warn
        )
    finally:
        shutil.rmtree(trained, ignore_errors=True)


def load_recipe() -> ModuleType:
    """Load torch, and what needs it."""
    # OpenMP threads that spin at a barrier cost a shared machine 10 times what they save.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from tdmr import run

    return run
