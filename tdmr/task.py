"""A job's materials: the two models, the decoded images, the views; and stage 1 on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tdmr import checkpoint
from tdmr.cache import ViewCache, ViewFeatures
from tdmr.checkpoint import Checkpoints
from tdmr.config import DistillOptions, JobSpec
from tdmr.data.index import DatasetIndex, IndexedImage, load_index
from tdmr.data.pixels import Pixels, pixel_store
from tdmr.distributed import World
from tdmr.feed import TrainingSet
from tdmr.inputs import learn_input_side
from tdmr.jobdir import Reporter
from tdmr.models import Foundation, Student, load_foundation, make_student
from tdmr.reprogram import Teacher, reprogram
from tdmr.store import ArrayStore
from tdmr.views import Views


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


@dataclass(frozen=True)
class Task:
    """What both stages work on. `identity` names the training images and their order.

    `input_side` is how good its candidates were; None if none was learnt although it was asked for.
    """

    spec: JobSpec
    classes: list[str]
    identity: dict[str, object]
    images: Images
    foundation: Foundation
    views: Views
    device: torch.device
    input_side: dict[str, float] | None = field(default_factory=dict)

    @property
    def options(self) -> DistillOptions:
        """The job's options."""
        return self.spec.options

    def training_set(self) -> TrainingSet:
        """What a student is trained on."""
        images = self.images
        return TrainingSet(images.train_student, images.train_labels, len(self.classes), self.views)

    def fresh_student(self, *, pretrained: bool | None = None) -> Student:
        """The untrained student: the same weights for TDMR and every baseline.

        `pretrained` overrides the job's option.
        """
        options = self.options
        if pretrained is None:
            pretrained = options.student_pretrained
        return make_student(
            self.spec.student,
            options.image_size,
            options.reprogram.taps,
            len(self.classes),
            pretrained=pretrained,
            seed=options.seed,
        ).to(self.device)


def prepare(
    spec: JobSpec,
    data: Path,
    store: ArrayStore,
    device: torch.device,
    reporter: Reporter,
    *,
    input_side: bool = True,
) -> tuple[Task, DatasetIndex]:
    """Load the models, index and decode the images, and settle the foundation's input side.

    Without `input_side` none is learnt, whatever the options say.
    """
    options = spec.options
    index = load_index(data)
    taps = options.reprogram.taps
    student = make_student(
        spec.student, options.image_size, taps, len(index.classes), pretrained=False, seed=0
    )
    match options.foundation_size:
        case "match":
            size, grid = None, student.grid
        case asked:
            size, grid = asked, None
    foundation = load_foundation(spec.foundation, size, taps, device, student_grid=grid)
    with World.current().main_first():
        images = Images.read(data, index, student.size, foundation.size, store, reporter)
    candidates: dict[str, float] | None = {}
    asked_for = bool(options.input.affine or options.input.border)
    if asked_for and not input_side:
        candidates = None
    elif asked_for:
        choice = learn_input_side(
            foundation,
            images.train_foundation,
            images.train_labels,
            len(index.classes),
            options.input,
            seed=options.seed,
            device=device,
            on_step=reporter.step,
        )
        foundation.input_side, candidates = choice.side, choice.candidates
    training = options.training
    views = options.views.counted(len(images.train_labels), training.steps * training.batch_size)
    # The version is blind to the images' order, and rows of features are stored in it.
    hashes = [image.sha256 for image in index.split("train")]
    task = Task(
        spec=spec,
        classes=index.classes,
        identity={"dataset": index.version, "images": hashes},
        images=images,
        foundation=foundation,
        views=Views(views, index.version, options.seed),
        device=device,
        input_side=candidates,
    )
    return task, index


def stored_views(task: Task, store: ArrayStore, reporter: Reporter) -> ViewFeatures | None:
    """The features of all views where they are stored already, at the price of a live check."""
    cache = ViewCache(store, task.foundation, task.images.train_foundation, task.views)
    return cache.find(task.identity, warn=reporter.warn)


def cache_views(task: Task, store: ArrayStore, reporter: Reporter) -> ViewFeatures:
    """Show every stored view to the foundation, once."""
    images = task.images.train_foundation
    with World.current().main_first():
        return ViewCache(store, task.foundation, images, task.views).features(
            task.identity, on_views=reporter.step, warn=reporter.warn
        )


def teach(
    task: Task,
    features: ViewFeatures,
    reporter: Reporter,
    checkpoints: Checkpoints = checkpoint.NONE,
) -> Teacher:
    """Stage 1 on the stored features; of several processes, each does all of it."""
    return reprogram(
        features,
        task.views,
        task.images.train_labels,
        len(task.classes),
        task.options.reprogram,
        seed=task.options.seed,
        device=task.device,
        on_step=reporter.step,
        checkpoints=World.current().shared(checkpoints),
    )
