"""The recipe of a distillation, from a dataset to what is packaged. Reads top to bottom."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tdmr import audit, bundle, checkpoint, distributed, evaluate, own, stages
from tdmr import trained as trained_result
from tdmr.checkpoint import Checkpoints
from tdmr.config import JobSpec
from tdmr.distributed import World
from tdmr.errors import OptionsError
from tdmr.jobdir import AUDIT, Reporter
from tdmr.methods import evaluate_probe, train_method
from tdmr.models import Student, size_warning
from tdmr.reprogram import Teacher
from tdmr.stages import OURS
from tdmr.store import ArrayStore
from tdmr.task import Task, cache_views, prepare, teach

WITHOUT_CACHE = ("scratch",)
DEFAULT_SIDE = 224
# Batches of fewer pixels (32 images of 96 x 96) lose more to threads that wait than they gain.
ONE_THREAD_PIXELS = 32 * 96 * 96


def run(
    spec: JobSpec,
    data: Path,
    out: Path,
    *,
    cache: Path,
    device: torch.device,
    reporter: Reporter,
    checkpoints: Checkpoints = checkpoint.NONE,
) -> dict[str, Any]:
    """Distil, compare, and leave what was trained in `out` (`tdmr.trained`); give its metrics.

    Raises a `tdmr.errors.TdmrError` for anything that the user can change, and Stopped.
    """
    set_up(device, spec)
    clock, store = Clock(), ArrayStore(cache)

    reporter.start("prepare")
    with clock("prepare"):
        task, index = prepare(spec, data, store, device, reporter)
        costs = functools.partial(spent, clock, task, checkpoints)
        if checkpoints.folder is not None:
            checkpoints.owner, checkpoints.spent = owner(task), costs
        params = sum(p.numel() for p in task.fresh_student().model.parameters())
        if warning := size_warning(task.foundation.parameters, params):
            reporter.warn(warning)

    reporter.start("cache")
    with clock("cache"):
        features = cache_views(task, store, reporter)

    reporter.start("reprogram")
    with clock("reprogram"):
        teacher = teach(task, features, reporter, checkpoints)

    trained = {}
    for stage in stages.trained(spec.baselines):
        reporter.start(stage)
        with clock(stage):
            trained[stage] = train_method(stage, task, teacher, reporter, checkpoints)

    reporter.start("evaluate")
    results = {name: method.evaluate(task) for name, method in trained.items()}
    if "probe" in spec.baselines:
        results["probe"] = evaluate_probe(task, teacher)
    audited = None
    if spec.options.audit:
        with World.current().main_first():
            audited = audit.look(task, index, store, reporter.step)
    student = trained[OURS].student
    metrics = conclude(out, task, student, teacher, results, costs(), audited=audited)
    reporter.step(1, 1)
    return metrics


def conclude(
    out: Path,
    task: Task,
    student: Student,
    teacher: Teacher | None,
    results: dict[str, evaluate.Accuracy],
    costs: dict[str, Any],
    partial: dict[str, Any] | None = None,
    audited: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `out` (`tdmr.trained`); give the metrics that it holds.

    `costs` are what `spent` gives; `partial` says what of a whole run is missing; `audited` is what
    `tdmr.audit` found.
    """
    exported = trained_result.export(student, out, task.classes)
    metrics = {
        **describe(task, teacher, costs["forwards"]),
        "student": {
            "architecture": task.spec.student,
            "params": sum(p.numel() for p in student.model.parameters()),
            "bytes": exported.bytes,
            "input_size": student.size,
        },
        **compare(results, costs["seconds"]),
        "partial": partial,
        "audit": audited and audited["counts"],
    }
    if audited is not None:
        bundle.write_json(out / AUDIT, audited)
    trained_result.complete(out, exported, task.spec, metrics)
    return metrics


def set_up(device: torch.device, spec: JobSpec) -> None:
    """Make the same input give the same bytes on the same machine, at its best speed.

    Under torchrun, meets the other processes. Raises OptionsError where they can't share a batch.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # On top of that, torch would fill every tensor that is about to be written anyway.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # not in the stubs
    world = distributed.join(device)
    world.part(spec.options.training.batch_size)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        exact = spec.options.training.precision == "fp32"
        torch.set_float32_matmul_precision("highest" if exact else "high")
        torch.backends.cudnn.allow_tf32 = not exact
    else:
        use_threads(spec)


def use_threads(spec: JobSpec) -> None:
    """Use as many threads on the CPU as the job's batches gain from, unless the user has said.

    Several processes share the machine.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    side = spec.options.image_size or DEFAULT_SIDE
    small = spec.options.training.batch_size * side**2 < ONE_THREAD_PIXELS
    share = (os.cpu_count() or 1) // World.current().size
    torch.set_num_threads(1 if small else max(1, share))


def owner(task: Task) -> str:
    """What a checkpoint belongs to: the job, its images and the foundation's weights."""
    # Of the input side too: it is a function of these.
    # What is said of the dataset, and in which formats the student is handed over, trains nothing;
    # what several devices train, one can go on with. An option that a newer version adds changes
    # nothing while it has its default.
    untrained = {"options": {"audit", "exports", "devices"}}
    spec = task.spec.model_dump_json(exclude=untrained, exclude_defaults=True)
    parts = (spec, task.identity, task.foundation.weights_hash())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass
class Clock:
    """Seconds per stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    _running: tuple[str, float] | None = None

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block as `stage`."""
        self._running = (stage, time.perf_counter())
        yield
        self.seconds, self._running = self.so_far(), None

    def so_far(self) -> dict[str, float]:
        """Seconds per stage, those of the one that is running included."""
        if self._running is None:
            return self.seconds
        stage, began = self._running
        return {**self.seconds, stage: round(time.perf_counter() - began, 3)}


def spent(clock: Clock, task: Task, checkpoints: Checkpoints) -> dict[str, Any]:
    """`seconds` per stage and the foundation's `forwards`, with those of earlier processes."""
    before, now = checkpoints.earlier.get("seconds", {}), clock.so_far()
    return {
        "seconds": {s: round(before.get(s, 0) + now.get(s, 0), 3) for s in {**before, **now}},
        "forwards": checkpoints.earlier.get("forwards", 0) + task.foundation.forwards,
    }


def compare(results: dict[str, evaluate.Accuracy], seconds: dict[str, float]) -> dict[str, Any]:
    """The student's accuracy, the baselines' beside it, and what each took."""
    shared = sum(seconds.get(s, 0.0) for s in ("cache", "reprogram"))

    def took(name: str) -> float:
        return seconds.get(name, 0.0) + (0 if name in WITHOUT_CACHE else shared)

    return {
        **results[OURS].as_dict(),
        "seconds": {**seconds, "total": round(took(OURS), 3)},
        "baselines": {
            name: {**result.as_dict(), "seconds": round(took(name), 3)}
            for name, result in results.items()
            if name != OURS
        },
    }


def describe(task: Task, teacher: Teacher | None, forwards: int) -> dict[str, Any]:
    """What was distilled from what; without a teacher, what it would tell is None."""
    foundation, mine = task.foundation, own.find(task.spec.foundation)
    return {
        "dataset": {
            "version": task.identity["dataset"],
            "classes": task.classes,
            "train_images": len(task.images.train_labels),
        },
        "foundation": {
            "name": task.spec.foundation,
            "params": foundation.parameters,
            "bytes": foundation.bytes,
            "sha256": foundation.weights_hash(),
            "input_size": foundation.size,
            "licence": foundation.licence,
            "own": mine and mine.about.model_dump(),
            "forwards": forwards,
            "input_side": task.input_side,
        },
        "cache": {
            "views_per_image": task.views.count,
            "bytes": teacher and teacher.features.bytes,
            "reused": teacher and teacher.features.reused,
        },
        "out_of_fold_accuracy": teacher and round(teacher.ridge.accuracy, 6),
        "seed": task.options.seed,
        "device": task.device.type,
    }


def pick_device(name: str) -> torch.device:
    """The device called `name`; `auto` is the first GPU, or the CPU where there is none.

    Of several processes under torchrun, each gets a GPU of its own.
    Raises OptionsError for a device that this machine doesn't have.
    """
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = distributed.local_device(torch.device(name))
        name = str(device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise OptionsError(
            f"There is no device {name!r} here.", suggestion="Use cpu, cuda:0 or auto."
        ) from error
    return device
