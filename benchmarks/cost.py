"""What each way to train a student costs: seconds per epoch, and for a whole job.

    make bench-cost
    FAST=1 make bench-cost    # a smaller size of the same code, in at most 5 minutes on 2 cores

Everything is measured in one process, in short blocks of steps that take turns for several rounds:
a machine that is busy for a while is then busy for all, and ratios are taken within a round. A
block is a training in small: TDMR's schedule runs from its beginning to its end in it, and its
first step, which allocates, isn't counted. Our methods pass through `tdmr.training.train`; timm's
own `LogitDistillationTask` through a plain loop with our batches, optimiser and weight average.

Whole jobs are composed of what was measured; the result says which parts were. Decoding the images
and the last look at them for BatchNorm, the same for every method of ours, are in none. Writes
benchmarks/results/cost.json and docs/cost.svg.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

# As the product does, and before torch loads OpenMP.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import timm
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from timm.models import save_for_hf
from timm.task import LogitDistillationTask
from torch import Tensor, nn

from benchmarks.machine import commit, machine, write_result
from tdmr import baselines, feed, optim, run, task
from tdmr.checkpoint import Checkpoints
from tdmr.config import DistillOptions, JobSpec, TrainingOptions, ViewOptions
from tdmr.errors import Stopped
from tdmr.feed import Batch, TrainingSet
from tdmr.jobdir import Reporter
from tdmr.methods import OURS, objective_for
from tdmr.reprogram import Teacher
from tdmr.store import ArrayStore
from tdmr.task import Task
from tdmr.training import train
from tdmr.views import Places, Views

SEED = 0
PICTURE = Path(__file__).parent.parent / "docs" / "cost.svg"
CPU = torch.device("cpu")
LABELS = {
    "scratch": "student alone",
    "tdmr_cold": "TDMR, cold cache",
    "tdmr_warm": "TDMR, warm cache",
    "kd_online": "plain distillation, online",
    "timm_online": "timm's distillation task",
}
BOUNDS = {
    "warm_epoch_over_plain": "at most 1.10",
    "cold_job_over_online": "at most 1/3",
    "pipeline_over_memory": "at least 0.90",
    "online_over_plain": "",
    "online_over_timm": "",
    "warm_job_over_cold": "",
}


@dataclass(frozen=True)
class Size:
    """How much is measured: of which models, on how many images, in which blocks."""

    foundation: str = "vit_small_patch16_224"
    architecture: tuple[tuple[str, int], ...] = ()  # what deviates from timm's
    student: str = "mobilenetv3_small_100"
    side: int = 224
    tiny_student: str = "test_resnet"
    tiny_side: int = 32
    classes: int = 4
    images: int = 64
    batch: int = 32
    views: int = 16
    stored_views: int = 16  # of them really stored; the price of the others is composed
    epochs: int = 100
    rounds: int = 7
    steps: int = 6  # timed in a block
    online_steps: int = 2  # the same, where the foundation is in the loop
    tiny_steps: int = 100

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every image comes once."""
        return self.images / self.batch


FULL = Size()
FAST = replace(FULL, images=32, batch=16, stored_views=4, rounds=5, steps=4, tiny_steps=40)
TINY = replace(
    FAST,
    architecture=(("img_size", 32), ("patch_size", 8), ("embed_dim", 48), ("depth", 4)),
    foundation="vit_tiny_patch16_224",
    student="test_resnet",
    side=32,
    images=16,
    batch=8,
    stored_views=2,
    rounds=2,
    steps=2,
    tiny_steps=2,
)


def draw_images(folder: Path, size: Size) -> None:
    """Write train/CLASS/ and test/CLASS/ of PNG files: noise of all scales, as in photographs."""
    generator = np.random.default_rng(SEED)
    for place in range(size.images + size.classes):
        half = "train" if place < size.images else "test"
        wide, high = (int(size.side * generator.uniform(1.0, 1.3)) for _ in range(2))
        pixels = np.full((high, wide, 3), 128.0)
        for knots in (3, 6, 12, 24, 48):
            coarse = generator.uniform(0, 255, (knots, knots, 3)).astype(np.uint8)
            smooth = Image.fromarray(coarse).resize((wide, high), Image.Resampling.BICUBIC)
            pixels += (np.asarray(smooth, dtype=np.float64) - 128) * 1.5 / knots**0.5
        target = folder / half / f"class_{place % size.classes}"
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target / f"{place:04}.png")


def save_foundation(folder: Path, size: Size) -> None:
    """A timm folder of the foundation with seeded random weights: they cost what others do."""
    torch.manual_seed(SEED)
    model = timm.create_model(size.foundation, num_classes=0, **dict(size.architecture))
    data = {"input_size": (3, size.side, size.side), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    save_for_hf(model, str(folder), data_config=data, safe_serialization=True)


class Ready(Views):
    """Views that were rendered beforehand, with their labels: what no pipeline could beat."""

    def __init__(self, views: Views, batches: list[Batch]) -> None:
        super().__init__(views.options, "", views.seed)
        self._batches = {self._name(b.images, b.views): b for b in batches}

    def render(self, pixels: Any, images: Places, views: Places, device: torch.device) -> Tensor:
        """The ready batch of these views."""
        return self._batches[self._name(images, views)].pixels

    def soft_labels(self, labels: Tensor, classes: int, images: Places, views: Places) -> Tensor:
        """The ready labels of these views."""
        return self._batches[self._name(images, views)].labels

    @staticmethod
    def _name(images: Places, views: Places) -> bytes:
        return images.tobytes() + views.tobytes()


def batch_of(data: TrainingSet, step: int, size: Size, *, stored: bool) -> Batch:
    """What the training loop is given in a step."""
    return feed.batch_at(
        data, step, stored_views=stored, batch_size=size.batch, seed=SEED, device=CPU
    )


def in_memory(data: TrainingSet, steps: int, size: Size) -> TrainingSet:
    """The same training set with its fresh views of `steps` steps rendered beforehand."""
    batches = [batch_of(data, step, size, stored=False) for step in range(steps)]
    return replace(data, views=Ready(data.views, batches))


class Lab:
    """The materials of all methods, and one block of each."""

    def __init__(self, size: Size, root: Path) -> None:
        self.size = size
        self._root = root
        self._reporter = Reporter(None, ["measure"])
        self._store = ArrayStore(root / "cache")
        draw_images(root / "data", size)
        save_foundation(root / "foundation", size)
        run.set_up(CPU, self._spec(size.student, size.side))
        self.job = self._prepare(size.student, size.side)
        self.tiny = self._prepare(size.tiny_student, size.tiny_side)
        self.online_forwards: dict[str, float] = {}  # per step
        self._make_teacher()

    def _spec(self, student: str, side: int) -> JobSpec:
        return JobSpec(
            foundation=f"local-dir:{self._root / 'foundation'}",
            student=student,
            options=DistillOptions(
                seed=SEED,
                image_size=side,
                views=ViewOptions(count=self.size.stored_views),
                training=TrainingOptions(batch_size=self.size.batch),
            ),
        )

    def _prepare(self, student: str, side: int) -> Task:
        spec = self._spec(student, side)
        return task.prepare(spec, self._root / "data", self._store, CPU, self._reporter)[0]

    def _make_teacher(self) -> None:
        """The cold cache, the warm one, and stage 1: each once, as a job does it."""
        foundation = self.job.foundation
        self.once: dict[str, float] = {}
        with clock(self.once, "cold_cache"):
            task.cache_views(self.job, self._store, self._reporter)
        self.cold_forwards, foundation.forwards = foundation.forwards, 0
        with clock(self.once, "warm_cache"):
            features = task.cache_views(self.job, self._store, self._reporter)
        self.warm_forwards = foundation.forwards
        assert features.reused
        with clock(self.once, "stage_1"):
            self.teacher: Teacher = task.teach(self.job, features, self._reporter)

    def blocks(self, number: int) -> dict[str, Callable[[], float]]:
        """What round `number` measures: seconds of a step, or of a view shown to the foundation."""
        size = self.size
        return {
            "scratch": lambda: self._train("scratch", self.job, size.steps),
            "tdmr": lambda: self._train(OURS, self.job, size.steps),
            "memory": lambda: self._train("scratch", self.job, size.steps, ready=True),
            "kd_online": self._online,
            "timm_online": self._timm,
            "view": lambda: self._view(number),
            "tiny": lambda: self._train("scratch", self.tiny, size.tiny_steps),
            "tiny_memory": lambda: self._train("scratch", self.tiny, size.tiny_steps, ready=True),
        }

    def _train(self, name: str, job: Task, steps: int, *, ready: bool = False) -> float:
        """Seconds of one of `steps` steps of the training loop."""
        run.set_up(CPU, job.spec)
        student = job.fresh_student()
        objective = objective_for(name, job, self.teacher, student)
        data, total = job.training_set(), steps + 2
        if ready:
            data = in_memory(data, total, self.size)
        ends: list[float] = []

        def stopping() -> bool:
            ends.append(time.perf_counter())
            return len(ends) > steps

        options = job.options.training.model_copy(update={"steps": total})
        with suppress(Stopped):
            train(
                student,
                data,
                objective,
                options,
                seed=SEED,
                stage=name,
                checkpoints=Checkpoints(stopping=stopping),
            )
        assert len(ends) == steps + 1, "the loop no longer asks after every step"
        return (ends[-1] - ends[0]) / steps

    def _online(self) -> float:
        """A step of plain distillation with the foundation in the loop."""
        foundation, steps = self.job.foundation, self.size.online_steps
        foundation.forwards = 0
        seconds = self._train("kd_online", self.job, steps)
        self.online_forwards["kd_online"] = foundation.forwards / (steps + 1)
        return seconds

    def _timm(self) -> float:
        """A step of timm's own task."""
        run.set_up(CPU, self.job.spec)
        options, steps = self.job.options.training, self.size.online_steps
        student = self.job.fresh_student().model.to(memory_format=torch.channels_last)
        teacher = timm.create_model(
            self.job.foundation.name, pretrained=True, num_classes=self.size.classes
        ).requires_grad_(False)
        seen: list[int] = []
        teacher.register_forward_hook(lambda module, given, output: seen.append(len(output)))
        distillation = LogitDistillationTask(
            student,
            teacher,
            nn.CrossEntropyLoss(label_smoothing=options.label_smoothing),
            task_loss_weight=baselines.CE,
            temperature=self.job.options.distil.temperature,
            verbose=False,
        ).train()
        distillation.setup_ema(decay=options.ema)
        optimizer = optim.adamw(student, options.weight_decay)
        config, data = student.pretrained_cfg, self.job.training_set()
        mean_, std = (torch.tensor(config[k]).view(1, -1, 1, 1) for k in ("mean", "std"))
        ends = []
        for step in range(steps + 1):
            optim.set_rate(optimizer, step, steps + 2, options.learning_rate, options.warmup)
            batch = batch_of(data, step, self.size, stored=False)
            loss = distillation((batch.pixels - mean_) / std, batch.labels)["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            distillation.update_ema(step)
            ends.append(time.perf_counter())
        self.online_forwards["timm_online"] = sum(seen) / (steps + 1)
        return (ends[-1] - ends[0]) / steps

    def _view(self, number: int) -> float:
        """Storing a view of every image that no cache has yet, for one image."""
        run.set_up(CPU, self.job.spec)
        options = self.job.options.views.model_copy(update={"count": 1})
        views = Views(options, str(self.job.identity["dataset"]), SEED + 1 + number)
        spent: dict[str, float] = {}
        with clock(spent, "view"):
            task.cache_views(replace(self.job, views=views), self._store, self._reporter)
        return spent["view"] / self.size.images


class clock:  # noqa: N801
    """Times a block into `seconds[name]`."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *raised: object) -> None:
        self._seconds[self._name] = time.perf_counter() - self._began
