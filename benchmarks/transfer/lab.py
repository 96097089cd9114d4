"""One draw at work: its images written, its features cached, and its methods trained."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import patterns
from benchmarks.transfer.grid import HEAD_REUSED, RAW, REUSED, SHUFFLED, Changes, Draw, spec
from demo import digits
from tdmr import task
from tdmr.config import DistillOptions
from tdmr.jobdir import Reporter
from tdmr.methods import evaluate_probe, train_method
from tdmr.probe import Ridge
from tdmr.proxy import Targets
from tdmr.reprogram import Teacher
from tdmr.stages import OURS
from tdmr.store import ArrayStore
from tdmr.task import Task
from tdmr.views import Places

# The method was developed on one half of the digits; what is claimed is measured on the other.
DEVELOPED, RESULT = slice(0, None, 2), slice(1, None, 2)
PATTERNS_HELD_OUT = 600
UNCHANGED: Changes = {}
STAGE_TWO = ("distil", "training")  # the options that stage 1 doesn't depend on


def write(draw: Draw, folder: Path, half: slice = RESULT) -> None:
    """Write the draw's images."""
    if draw.target == "digits":
        digits.write(folder, draw.shots, draw.seed, np.arange(digits.COUNT)[half])
    else:
        patterns.write(folder, draw.shots, draw.seed, PATTERNS_HELD_OUT)


class Lab:
    """A draw's materials, made when they are first needed."""

    def __init__(self, draw: Draw, data: Path, cache: Path) -> None:
        self.draw = draw
        self.data = data
        self.cache = cache
        self._store = ArrayStore(cache)
        self._reporter = Reporter(None, ["prepare"])
        self._made: dict[str, tuple[Task, Teacher, dict[str, Any]]] = {}

    def train(self, method: str, changes: Changes = UNCHANGED) -> dict[str, Any]:
        """Held-out accuracy of `method` under options with `changes`, and what it cost."""
        if method == "scratch":
            return self._scratch(changes)
        job, teacher, cost = self._materials(changes)
        source, name = None, method
        if method == "tdmr":
            name = OURS
        elif method == REUSED:
            name, job = OURS, changed(job, HEAD_REUSED)
        elif method == SHUFFLED:
            name, source = OURS, Shuffled(teacher, self.draw.seed)
            job = changed(job, {"distil": {"ce": 1.0, "kd": 0.0, "head": "own"}})
        return self._measure(name, job, teacher, source, cost)

    def ablate(self, name: str, changes: Changes) -> dict[str, Any]:
        """TDMR with one thing changed."""
        job, teacher, cost = self._materials(changes)
        source = RawFeatures(teacher) if name == RAW else None
        return self._measure(OURS, job, teacher, source, cost)

    def probe(self) -> float:
        """The foundation's linear probe."""
        job, teacher, _ = self._materials()
        return evaluate_probe(job, teacher).value

    def _scratch(self, changes: Changes) -> dict[str, Any]:
        job = self._prepare(changes)
        return self._measure("scratch", job, None, None, {})

    def _measure(
        self, name: str, job: Task, teacher: Teacher | None, source: Any, cost: dict[str, Any]
    ) -> dict[str, Any]:
        began, seen = time.perf_counter(), job.foundation.forwards
        trained = train_method(name, job, teacher, source=source)
        seconds = time.perf_counter() - began
        return {
            "accuracy": trained.evaluate(job).value,
            "seconds": round(seconds, 2),
            "online_forwards": job.foundation.forwards - seen,
            **cost,
        }

    def _prepare(self, changes: Changes) -> Task:
        wanted = spec(self.draw)
        wanted = wanted.model_copy(update={"options": with_changes(wanted.options, changes)})
        device = torch.device("cpu")
        job, _ = task.prepare(wanted, self.data, self._store, device, self._reporter)
        return job

    def _materials(self, changes: Changes = UNCHANGED) -> tuple[Task, Teacher, dict[str, Any]]:
        """Stage 1 doesn't depend on the student's training: made once."""
        stage_one = {k: v for k, v in changes.items() if k not in STAGE_TWO}
        key = repr(sorted(stage_one.items()))
        if key not in self._made:
            self._made[key] = self._make(stage_one)
        job, teacher, cost = self._made[key]
        options = spec(self.draw).options
        job = replace(
            job, spec=job.spec.model_copy(update={"options": with_changes(options, changes)})
        )
        return job, teacher, cost

    def _make(self, changes: Changes) -> tuple[Task, Teacher, dict[str, Any]]:
        began = time.perf_counter()
        job = self._prepare(changes)
        features = task.cache_views(job, self._store, self._reporter)
        teacher = task.teach(job, features, self._reporter)
        return (
            job,
            teacher,
            {
                "stage_one_seconds": round(time.perf_counter() - began, 2),
                "views": features.array.shape[0] * features.array.shape[1],
                "cache_bytes": features.bytes,
                "cache_reused": features.reused,
            },
        )


def changed(job: Task, changes: Changes) -> Task:
    """The same materials under other options."""
    options = with_changes(job.options, changes)
    return replace(job, spec=job.spec.model_copy(update={"options": options}))


def with_changes(options: DistillOptions, changes: Changes) -> DistillOptions:
    """Options with some fields of some groups replaced."""
    groups = {
        name: getattr(options, name).model_copy(update=fields) for name, fields in changes.items()
    }
    return options.model_copy(update=groups)


class Shuffled:
    """A control: the proxies of other images. Teaches structure that isn't the image's own."""

    def __init__(self, teacher: Teacher, seed: int) -> None:
        self._teacher = teacher
        count = teacher.features.array.shape[1]
        order = np.random.default_rng(seed).permutation(count)
        self._other = np.empty(count, dtype=np.int64)
        self._other[order] = np.roll(order, 1)  # nobody keeps their own

    @property
    def target_widths(self) -> Any:
        """As the teacher's."""
        return self._teacher.target_widths

    @property
    def head(self) -> Ridge:
        """The teacher's."""
        return self._teacher.head

    def targets(self, images: Places, views: Places) -> Targets:
        """The targets of other images, in the same views."""
        return self._teacher.targets(self._other[images], views)


class RawFeatures:
    """An ablation: the foundation's standardised features in the proxies' place."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher

    @property
    def target_widths(self) -> Any:
        """The features' own."""
        return self._teacher.widths

    @property
    def head(self) -> Ridge:
        """The teacher's."""
        return self._teacher.head

    def targets(self, images: Places, views: Places) -> Targets:
        """Raw features, and the teacher's own logits."""
        theirs = self._teacher.targets(images, views)
        return replace(theirs, proxies=self._teacher.features_of(images, views))
