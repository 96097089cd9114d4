"""What each way to train a student costs: seconds per epoch, and for a whole job.

    make bench-cost
    FAST=1 make bench-cost    # a smaller size of the same code, in at most 5 minutes on 2 cores

Everything is measured in one process, in short blocks that take turns, in another order each
round: a machine that is busy for a while is busy for all, and ratios are taken within a round. A
block is the beginning of a short training, without its first step, which allocates. Our methods
pass through `tdmr.training.train`, timm's own `LogitDistillationTask` through a plain loop with our
batches and optimiser. Writes results/cost.json and docs/cost.svg (FAST=1: cost_fast.json).
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
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
from tdmr import baselines, feed, optim, run, stages, task
from tdmr.checkpoint import Checkpoints
from tdmr.config import DistillOptions, JobSpec, ReprogramOptions, TrainingOptions, ViewOptions
from tdmr.errors import Stopped
from tdmr.feed import Feed, TrainingSet
from tdmr.jobdir import Reporter
from tdmr.methods import objective_for
from tdmr.store import ArrayStore
from tdmr.task import Task
from tdmr.training import train
from tdmr.views import Places, Views

SEED = 0
CPU = torch.device("cpu")
PICTURE = Path(__file__).parent.parent / "docs" / "cost.svg"
LABELS = {
    "scratch": "student alone",
    "tdmr_cold": "TDMR, cold cache",
    "tdmr_warm": "TDMR, warm cache",
    "kd_online": "online distillation",
    "timm_online": "timm's distillation task",
}
HOW = (
    "A job is composed of measured parts: epochs x the round's epoch, and for TDMR what is before. "
    "A cold cache is K x images x the round's seconds per view stored for the first time; a warm "
    "one's check and stage 1 were measured once. Decoding and the last BatchNorm statistics are in "
    "no job, nor is the probe that online distillation learns from."
)


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
    proxy_steps: int = 300
    epochs: int = 100
    rounds: int = 15
    steps: int = 8  # timed in a block
    online_steps: int = 1  # the same, where the foundation is in the loop
    tiny_steps: int = 50

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every image comes once."""
        return self.images / self.batch


FAST = Size(images=32, batch=16, stored_views=4, rounds=7, steps=4)


def draw_images(folder: Path, size: Size) -> None:
    """Write train/CLASS/ and test/CLASS/ of PNG files with smooth noise."""
    generator = np.random.default_rng(SEED)
    for place in range(size.images + size.classes):
        half = "train" if place < size.images else "test"
        target = folder / half / f"class_{place % size.classes}"
        target.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        wide, high = (round(size.side * each) for each in generator.uniform(1, 1.3, 2))
        coarse.resize((wide, high), Image.Resampling.BICUBIC).save(target / f"{place:04}.png")


def save_foundation(folder: Path, size: Size) -> None:
    """A timm folder of the foundation with random weights, which cost what others do."""
    torch.manual_seed(SEED)
    model = timm.create_model(size.foundation, num_classes=0, **dict(size.architecture))
    data = {"input_size": (3, size.side, size.side), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    save_for_hf(model, str(folder), data_config=data, safe_serialization=True)


def fresh(data: TrainingSet, steps: int, size: Size, *, ahead: int) -> Feed:
    """The batches that a training of `steps` steps on fresh views is given."""
    options = {"batch_size": size.batch, "seed": SEED, "device": CPU}
    return Feed(data, steps=steps, stored_views=False, ahead=ahead, **options)


class Ready(Views):
    """The fresh views of a training's steps, rendered beforehand and kept in memory."""

    def __init__(self, data: TrainingSet, steps: int, size: Size) -> None:
        super().__init__(data.views.options, "", SEED)
        with fresh(data, steps, size, ahead=0) as source:
            batches = [source.batch(step) for step in range(steps)]
        self._batches = {self._name(batch.images, batch.views): batch for batch in batches}

    def render(self, pixels: Any, images: Places, views: Places, *_: Any) -> Tensor:
        """The ready pixels of these views."""
        return self._batches[self._name(images, views)].pixels

    def soft_labels(self, labels: Tensor, classes: int, images: Places, views: Places) -> Tensor:
        """The ready labels of these views."""
        return self._batches[self._name(images, views)].labels

    @staticmethod
    def _name(images: Places, views: Places) -> bytes:
        return images.tobytes() + views.tobytes()


class Lab:
    """The materials of all methods, and one block of each."""

    def __init__(self, size: Size, root: Path) -> None:
        self.size, self._root = size, root
        self._store, self._reporter = ArrayStore(root / "cache"), Reporter(None, ["measure"])
        draw_images(root / "data", size)
        save_foundation(root / "foundation", size)
        self.job = self._prepare(size.student, size.side)
        self.tiny = self._prepare(size.tiny_student, size.tiny_side)
        self.forwards: dict[str, float] = {}  # counted: of both caches, and per step
        self.clock = run.Clock()  # of what is measured once
        self._make_teacher()

    def _prepare(self, student: str, side: int) -> Task:
        size = self.size
        options = DistillOptions(
            seed=SEED,
            image_size=side,
            views=ViewOptions(count=size.stored_views),
            reprogram=ReprogramOptions(steps=size.proxy_steps),
            training=TrainingOptions(batch_size=size.batch),
        )
        foundation = f"local-dir:{self._root / 'foundation'}"
        spec = JobSpec(foundation=foundation, student=student, options=options)
        return task.prepare(spec, self._root / "data", self._store, CPU, self._reporter)[0]

    def _make_teacher(self) -> None:
        """The cold cache, the warm one, and stage 1: each once, as a job does it."""
        run.set_up(CPU, self.job.spec)
        for name in ("cold_cache", "warm_cache"):
            self.job.foundation.forwards = 0
            with self.clock(name):
                features = task.cache_views(self.job, self._store, self._reporter)
            self.forwards[name] = self.job.foundation.forwards
        assert features.reused
        with self.clock("stage_1"):
            self.teacher = task.teach(self.job, features, self._reporter)

    def blocks(self, number: int) -> dict[str, Callable[[], float]]:
        """What round `number` measures: seconds of a step, or of a view shown to the foundation."""
        size = self.size
        return {
            "scratch": lambda: self._train("scratch", self.job, size.steps),
            "tdmr": lambda: self._train(stages.OURS, self.job, size.steps),
            "memory": lambda: self._train("scratch", self.job, size.steps, ready=True),
            "kd_online": lambda: self._train("kd_online", self.job, size.online_steps),
            "timm_online": self._timm,
            "view": lambda: self._view(number),
            "tiny": lambda: self._train("scratch", self.tiny, size.tiny_steps),
            "tiny_memory": lambda: self._train("scratch", self.tiny, size.tiny_steps, ready=True),
        }

    def _train(self, name: str, job: Task, steps: int, *, ready: bool = False) -> float:
        """A step of the training loop: the mean of `steps`, behind the first."""
        run.set_up(CPU, job.spec)
        student = job.fresh_student()
        objective = objective_for(name, job, self.teacher, student)
        # Longer than what is timed, for a feed that works ahead has nothing to do at the end.
        total = steps + 2 + feed.AHEAD
        options = job.options.training.model_copy(update={"steps": total})
        data, ends = job.training_set(), list[float]()
        job.foundation.forwards = 0
        if ready:
            data = replace(data, views=Ready(data, total, self.size))

        def stopping() -> bool:
            ends.append(time.perf_counter())
            return len(ends) > steps

        watch = Checkpoints(stopping=stopping)  # asked after every step; no file is written
        with suppress(Stopped):
            train(student, data, objective, options, seed=SEED, stage=name, checkpoints=watch)
        assert len(ends) == steps + 1, "the loop no longer asks after every step"
        self.forwards[name] = job.foundation.forwards / len(ends)
        return (ends[-1] - ends[0]) / steps

    def _timm(self) -> float:
        """A step of timm's own task."""
        run.set_up(CPU, self.job.spec)
        options, steps = self.job.options.training, self.size.online_steps
        student = self.job.fresh_student().model.to(memory_format=torch.channels_last)
        name, seen = self.job.foundation.name, list[int]()
        teacher = timm.create_model(name, pretrained=True, num_classes=self.size.classes)
        teacher.register_forward_hook(lambda module, given, output: seen.append(len(output)))
        distillation = LogitDistillationTask(
            student,
            teacher.requires_grad_(False),
            nn.CrossEntropyLoss(label_smoothing=options.label_smoothing),
            task_loss_weight=baselines.CE,
            temperature=self.job.options.distil.temperature,
            verbose=False,
        ).train()
        distillation.setup_ema(decay=options.ema)
        optimizer = optim.adamw(student, options.weight_decay)
        total, ends = steps + 2 + feed.AHEAD, list[float]()
        with fresh(self.job.training_set(), total, self.size, ahead=feed.AHEAD) as source:
            for step in range(steps + 1):
                batch = source.batch(step)
                pixels = (batch.pixels - distillation.student_mean) / distillation.student_std
                loss = distillation(pixels, batch.labels)["loss"]
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optim.set_rate(optimizer, step, total, options.learning_rate, options.warmup)
                optimizer.step()
                distillation.update_ema(step)
                ends.append(time.perf_counter())
        self.forwards["timm_online"] = sum(seen) / len(ends)
        return (ends[-1] - ends[0]) / steps

    def _view(self, number: int) -> float:
        """Storing a view of every image that no cache has yet, per image."""
        run.set_up(CPU, self.job.spec)
        options = self.job.options.views.model_copy(update={"count": 1})
        views = Views(options, str(self.job.identity["dataset"]), SEED + 1 + number)
        began = time.perf_counter()
        task.cache_views(replace(self.job, views=views), self._store, self._reporter)
        return (time.perf_counter() - began) / self.size.images


def composed(size: Size, once: dict[str, float], row: dict[str, float]) -> dict[str, Any]:
    """Seconds of epochs and of whole jobs, and the ratios, as one round saw them."""
    step = {**row, "tdmr_cold": row["tdmr"], "tdmr_warm": row["tdmr"]}
    epoch = {name: step[name] * size.steps_per_epoch for name in LABELS}
    before = dict.fromkeys(LABELS, 0.0)
    before["tdmr_cold"] = size.views * size.images * row["view"] + once["stage_1"]
    before["tdmr_warm"] = once["warm_cache"] + once["stage_1"]
    job = {name: before[name] + size.epochs * epoch[name] for name in LABELS}
    ratios = {
        "warm_epoch_over_plain": row["tdmr"] / row["scratch"],
        "cold_job_over_online": job["tdmr_cold"] / job["kd_online"],
        "cold_job_over_timm": job["tdmr_cold"] / job["timm_online"],
        "online_over_plain": row["kd_online"] / row["scratch"],
        "online_over_timm": row["kd_online"] / row["timm_online"],
        "pipeline_over_memory_student": row["memory"] / row["scratch"],
        "pipeline_over_memory_tiny": row["tiny_memory"] / row["tiny"],
    }
    return {"epoch": epoch, "before": before, "job": job, "ratios": ratios}


def measure(size: Size, root: Path, console: Console) -> dict[str, Any]:
    """Every figure, from materials that are made below `root`."""
    lab, rows = Lab(size, root), list[dict[str, float]]()
    for number in range(size.rounds):
        blocks = list(lab.blocks(number).items())
        random.Random(number).shuffle(blocks)  # what runs before a block leaves its mark on it
        rows.append({name: block() for name, block in blocks})
        console.print(number + 1, {name: round(rows[-1][name], 4) for name, _ in blocks})
    found = [composed(size, lab.clock.seconds, row) for row in rows]

    def over_rounds(what: str) -> dict[str, dict[str, float]]:
        columns = {name: [each[what][name] for each in found] for name in found[0][what]}
        return {n: {"median": median(c), "low": min(c), "high": max(c)} for n, c in columns.items()}

    ratios, epochs = over_rounds("ratios"), over_rounds("epoch")
    headline = {name: values["median"] for name, values in ratios.items()}
    pipeline = [value for name, value in headline.items() if name.startswith("pipeline")]
    return {
        **headline,
        "pipeline_over_memory": min(pipeline),
        "ratios": ratios,
        "seconds_per_epoch": epochs,
        "seconds_before_training": over_rounds("before"),
        "job_seconds": over_rounds("job"),
        "images_per_second": {m: size.images / epochs[m]["median"] for m in LABELS},
        "foundation_forwards": forwards(lab),
        "counted_forwards": lab.forwards,
        "measured_once": lab.clock.seconds,
        "composed": HOW,
        "rounds": rows,
        "load": os.getloadavg(),  # over 1, 5 and 15 minutes
        "size": asdict(size),
    }


def forwards(lab: Lab) -> dict[str, int]:
    """Images that the foundation sees in a whole job of each method, from what was counted."""
    size, counted = lab.size, lab.forwards
    whole, steps = size.views / size.stored_views, size.epochs * size.steps_per_epoch
    cached = {f"tdmr_{how}": counted[f"{how}_cache"] * whole for how in ("cold", "warm")}
    found = cached | {name: counted[name] * steps for name in LABELS if name not in cached}
    return {name: round(found[name]) for name in LABELS}


def show(console: Console, found: dict[str, Any]) -> None:
    """Print the methods beside each other, and the ratios."""
    size = found["size"]
    table = Table("", "s per epoch", "images/s", "s before", "s per job", "foundation forwards")
    for name, label in LABELS.items():
        table.add_row(
            label,
            ranged(found["seconds_per_epoch"][name], 2),
            f"{found['images_per_second'][name]:.1f}",
            f"{found['seconds_before_training'][name]['median']:.1f}",
            ranged(found["job_seconds"][name], 0),
            f"{found['foundation_forwards'][name]:,}",
        )
    ratios = Table("ratio within a round", "median (range)")
    for name, values in found["ratios"].items():
        ratios.add_row(name, ranged(values, 3))
    console.print(
        f"{size['foundation']} into {size['student']} at {size['side']} pixels, {size['images']} "
        f"images, K = {size['views']}, {size['epochs']} epochs: median (range) over the rounds"
    )
    console.print(table, ratios, HOW, sep="\n")


def ranged(values: dict[str, float], digits: int) -> str:
    """A median with its range."""
    middle, low, high = (f"{values[key]:,.{digits}f}" for key in ("median", "low", "high"))
    return f"{middle} ({low} to {high})"


def draw(found: dict[str, Any], path: Path) -> None:
    """Write an SVG of the seconds that a whole job takes."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tdmr"  # the same figures give the same file
    from matplotlib import pyplot as plt

    size, jobs = found["size"], [found["job_seconds"][name] for name in LABELS]
    figure, axes = plt.subplots(figsize=(6.4, 2.8), layout="tight")
    colours = ["#0b5cad" if name.startswith("tdmr") else "#9aa5b1" for name in LABELS]
    axes.barh(list(LABELS.values()), [job["median"] for job in jobs], color=colours)
    for place, job in enumerate(jobs):
        axes.hlines(place, job["low"], job["high"], color="black", linewidth=1)
        axes.text(job["high"], place, f"  {job['median']:,.0f}", va="center")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(job["high"] for job in jobs))
    axes.set_xlabel(f"seconds: {size['images']} images, {size['epochs']} epochs; lines: range")
    axes.set_title(f"{size['foundation']} into {size['student']}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Run, print and store; a fast run never replaces what was measured in full."""
    fast, console = bool(os.environ.get("FAST")), Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(FAST if fast else Size(), Path(folder), console)
    show(console, found)
    command = ("FAST=1 " if fast else "") + "make bench-cost"
    origin = {"command": command, "commit": commit(), "machine": machine(), "seeds": [SEED]}
    if not fast:
        draw(found, PICTURE)
    console.print("Stored in", write_result("cost_fast" if fast else "cost", {**origin, **found}))


if __name__ == "__main__":
    main()
