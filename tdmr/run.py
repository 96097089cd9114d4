"""The recipe of a distillation, from a dataset folder to a bundle. Reads top to bottom."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmr import baselines, bundle, evaluate
from tdmr.cache import ViewCache, ViewFeatures
from tdmr.config import JobSpec
from tdmr.data.index import DatasetIndex, IndexedImage, load_index
from tdmr.data.pixels import Pixels, pixel_store
from tdmr.distil import ProgressiveDistillation, adapters_for
from tdmr.errors import OptionsError
from tdmr.jobdir import Reporter
from tdmr.models import Foundation, Student, load_foundation, make_student
from tdmr.reprogram import Teacher, reprogram
from tdmr.schedule import Schedule
from tdmr.store import ArrayStore
from tdmr.training import Objective, TrainingSet, train
from tdmr.views import Views

STAGES = ["prepare", "cache", "reprogram", "distil"]
LAST_STAGES = ["evaluate", "bundle"]
TRAINED_BASELINES = ("scratch", "kd")
DEFAULT_SIDE = 224
# Batches of fewer pixels (32 images of 96 x 96) lose more to threads that wait than they gain.
ONE_THREAD_PIXELS = 32 * 96 * 96


def stages(spec: JobSpec) -> list[str]:
    """The names of a job's stages, in order."""
    return [*STAGES, *(b for b in TRAINED_BASELINES if b in spec.baselines), *LAST_STAGES]


def run(
    spec: JobSpec, data: Path, out: Path, *, cache: Path, device: torch.device, reporter: Reporter
) -> dict[str, Any]:
    """Distil, compare, and write the bundle into `out`; give the metrics that it holds.

    Raises a `tdmr.errors.TdmrError` for anything that the user can change.
    """
    set_up(device, spec)
    options, clock, store = spec.options, Clock(), ArrayStore(cache)

    reporter.start("prepare")
    with clock("prepare"):
        index = load_index(data)
        taps = options.reprogram.taps
        foundation = load_foundation(spec.foundation, options.foundation_size, taps, device)
        student = fresh_student(spec, index, device)
        images = Images.read(data, index, student.size, foundation.size, store, reporter)

    views = Views(options.views, index.version, options.seed)
    reporter.start("cache")
    with clock("cache"):
        features = ViewCache(store, foundation, images.train_foundation, views).features(
            # The version is blind to the images' order, and rows are stored in it.
            {"dataset": index.version, "images": [i.sha256 for i in index.split("train")]},
            on_views=reporter.step,
            warn=reporter.warn,
        )

    reporter.start("reprogram")
    with clock("reprogram"):
        teacher = reprogram(
            features,
            views,
            images.train_labels,
            len(index.classes),
            options.reprogram,
            seed=options.seed,
            device=device,
            on_step=reporter.step,
        )

    training = TrainingSet(images.train_student, images.train_labels, len(index.classes), views)
    trained = {}
    for stage, objective in objectives(spec, teacher, student).items():
        fresh = student if stage == "distil" else fresh_student(spec, index, device)
        with clock(stage):
            trained[stage] = train_one(spec, fresh, training, objective, stage, reporter)

    reporter.start("evaluate")
    results = evaluate_students(trained, images, device)
    if "probe" in spec.baselines:
        results["probe"] = evaluate_probe(foundation, teacher, images, device)

    reporter.start("bundle")
    size = bundle.save_model(trained["distil"], out, index.classes)
    metrics = describe(spec, index, foundation, features, teacher, trained["distil"], size)
    metrics |= compare(results, clock.seconds)
    bundle.finish(out, spec, metrics)
    reporter.step(1, 1)
    return metrics


def set_up(device: torch.device, spec: JobSpec) -> None:
    """Make the same input give the same bytes on the same machine, and choose CPU threads."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
    elif "OMP_NUM_THREADS" not in os.environ:
        options = spec.options
        side = options.image_size or DEFAULT_SIDE
        small = options.training.batch_size * side**2 < ONE_THREAD_PIXELS
        torch.set_num_threads(1 if small else os.cpu_count() or 1)


@dataclass
class Clock:
    """Seconds per stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block as `stage`."""
        began = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - began, 3)


@dataclass(frozen=True)
class Images:
    """Decoded images of both splits, at the side that each model sees, and their classes."""

    train_student: Pixels
    train_foundation: Pixels
    train_labels: Tensor
    held_out_student: Pixels
    held_out_foundation: Pixels
    held_out_labels: Tensor

    @classmethod
    def read(
        cls,
        data: Path,
        index: DatasetIndex,
        student_size: int,
        foundation_size: int,
        store: ArrayStore,
        reporter: Reporter,
    ) -> Images:
        """Decode what isn't decoded yet."""
        train_images, held_out = index.split("train"), index.held_out

        def pixels(images: list[IndexedImage], size: int) -> Pixels:
            return pixel_store(data, images, size, store, reporter.step)

        return cls(
            train_student=pixels(train_images, student_size),
            train_foundation=pixels(train_images, foundation_size),
            train_labels=labels(train_images, index.classes),
            held_out_student=pixels(held_out, student_size),
            held_out_foundation=pixels(held_out, foundation_size),
            held_out_labels=labels(held_out, index.classes),
        )


def labels(images: list[IndexedImage], classes: list[str]) -> Tensor:
    """The class number of each image: (images,)."""
    places = {name: place for place, name in enumerate(classes)}
    return torch.tensor([places[image.label] for image in images])


def fresh_student(spec: JobSpec, index: DatasetIndex, device: torch.device) -> Student:
    """The untrained student: the same weights for TDMR and every baseline."""
    options = spec.options
    return make_student(
        spec.student,
        options.image_size,
        options.reprogram.taps,
        len(index.classes),
        pretrained=options.student_pretrained,
        seed=options.seed,
    ).to(device)


def objectives(spec: JobSpec, teacher: Teacher, student: Student) -> dict[str, Objective]:
    """What each stage trains a student for: TDMR first, then the baselines asked for."""
    options = spec.options
    taps, proxy_dim = len(teacher.space.widths), options.reprogram.proxy_dim
    widths, device = student.tap_widths(), student.mean.device
    smoothing = options.training.label_smoothing
    every: dict[str, Objective] = {
        "distil": ProgressiveDistillation(
            teacher,
            adapters_for(widths, proxy_dim, taps, options.seed, device),
            Schedule(options.distil, taps, proxy_dim),
            smoothing,
        ),
        "scratch": baselines.Scratch(smoothing),
        "kd": baselines.Distillation(teacher.probe_targets, smoothing, options.distil.temperature),
    }
    return {name: every[name] for name in every if name == "distil" or name in spec.baselines}


def train_one(
    spec: JobSpec,
    student: Student,
    data: TrainingSet,
    objective: Objective,
    stage: str,
    reporter: Reporter,
) -> Student:
    """A student trained for one objective, with the budget that all of them get."""
    reporter.start(stage)
    return train(
        student,
        data,
        objective,
        spec.options.training,
        seed=spec.options.seed,
        stage=stage,
        on_step=reporter.step,
    )


def evaluate_students(
    trained: dict[str, Student], images: Images, device: torch.device
) -> dict[str, evaluate.Accuracy]:
    """Held-out accuracy of every student."""
    results = {}
    for name, student in trained.items():
        predicted = evaluate.predict(
            lambda x, s=student: s(x).logits,  # type: ignore[misc]
            images.held_out_student,
            device,
        )
        results[name] = evaluate.accuracy(predicted, images.held_out_labels)
    return results


def evaluate_probe(
    foundation: Foundation, teacher: Teacher, images: Images, device: torch.device
) -> evaluate.Accuracy:
    """Held-out accuracy of the linear probe on the foundation's last features."""

    def classify(x: Tensor) -> Tensor:
        features = torch.cat(foundation.features(x), dim=1)
        return teacher.probe_logits(teacher.space.standardise(features))

    predicted = evaluate.predict(classify, images.held_out_foundation, device)
    return evaluate.accuracy(predicted, images.held_out_labels)


def compare(results: dict[str, evaluate.Accuracy], seconds: dict[str, float]) -> dict[str, Any]:
    """The student's accuracy, the baselines' beside it, and what each took."""
    shared = sum(seconds[s] for s in ("cache", "reprogram"))
    took = {
        "probe": shared,
        "scratch": seconds.get("scratch"),
        "kd": shared + seconds.get("kd", 0.0),
    }
    return {
        **results["distil"].as_dict(),
        "seconds": {**seconds, "total": round(shared + seconds["distil"], 3)},
        "baselines": {
            name: {**result.as_dict(), "seconds": round(took[name] or 0.0, 3)}
            for name, result in results.items()
            if name != "distil"
        },
    }


def describe(
    spec: JobSpec,
    index: DatasetIndex,
    foundation: Foundation,
    features: ViewFeatures,
    teacher: Teacher,
    student: Student,
    student_bytes: int,
) -> dict[str, Any]:
    """What was distilled from what."""
    return {
        "dataset": {
            "version": index.version,
            "classes": index.classes,
            "train_images": len(index.split("train")),
        },
        "student": {
            "architecture": spec.student,
            "params": sum(p.numel() for p in student.model.parameters()),
            "bytes": student_bytes,
            "input_size": student.size,
        },
        "foundation": {
            "name": spec.foundation,
            "params": foundation.parameters,
            "bytes": foundation.bytes,
            "sha256": foundation.weights_hash(),
            "licence": foundation.model.pretrained_cfg.get("license"),
            "forwards": foundation.forwards,
        },
        "cache": {"bytes": features.bytes, "reused": features.reused},
        "out_of_fold_accuracy": round(teacher.ridge.accuracy, 6),
        "seed": spec.options.seed,
    }


def pick_device(name: str) -> torch.device:
    """The device called `name`; `auto` is the first GPU, or the CPU where there is none.

    Raises OptionsError for a device that this machine doesn't have.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise OptionsError(
            f"There is no device {name!r} here.", suggestion="Use cpu, cuda:0 or auto."
        ) from error
    return device
