"""The one training loop: TDMR and every baseline pass through it with the same budget.

Each step is a pure function of the seed and the step's number: which images, which views, and
what dropout does. Nothing else is random.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tdmr.config import TrainingOptions
from tdmr.data.pixels import Pixels
from tdmr.errors import NonFiniteLossError
from tdmr.losses import as_numbers
from tdmr.models import Student, StudentOutput
from tdmr.views import Views

OnStep = Callable[[int, int, dict[str, float]], None]
CHECK_EVERY = 10  # steps between two looks at the losses: a look waits for the device


@dataclass(frozen=True)
class TrainingSet:
    """The images to train on: `pixels` (n, 3, side, side) and `labels` (n,), and their views."""

    pixels: Pixels
    labels: Tensor
    classes: int
    views: Views


@dataclass(frozen=True)
class Batch:
    """Which views, how they look (n, 3, side, side), and their classes (n, classes)."""

    images: npt.NDArray[np.int64]
    views: npt.NDArray[np.int64]
    pixels: Tensor
    labels: Tensor


class Objective(Protocol):
    """What a student is trained for: named parts, of which `loss` is the one minimised."""

    stored_views: bool  # True: replays the views of the cache; False: fresh ones each time

    def modules(self) -> list[nn.Module]:
        """What is trained beside the student, and never exported."""

    def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
        """The parts of the loss at progress `t` in [0, 1)."""


def train(
    student: Student,
    data: TrainingSet,
    objective: Objective,
    options: TrainingOptions,
    *,
    seed: int,
    stage: str,
    on_step: OnStep = lambda step, steps, losses: None,
) -> Student:
    """Train `student` in place, and give back its averaged, recalibrated self, in eval mode.

    Raises NonFiniteLossError with its step; the loss is looked at every few steps.
    """
    device = student.mean.device
    student.to(memory_format=torch.channels_last)
    trained = nn.ModuleList([student, *objective.modules()]).train()
    optimizer = torch.optim.AdamW(_groups(trained, options.weight_decay), lr=1.0, fused=True)
    average = copy.deepcopy(student).requires_grad_(False)
    for step in range(options.steps):
        torch.manual_seed(seed * 1_000_003 + step)
        _set_rate(optimizer, options, step)
        batch = _batch(data, objective, options.batch_size, seed, step, device)
        parts = objective(batch, student(batch.pixels), step / options.steps)
        optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        _average(average, student, options.ema, step)
        if step % CHECK_EVERY == 0 or step == options.steps - 1:
            numbers = as_numbers(parts)
            if not math.isfinite(numbers["loss"]):
                raise NonFiniteLossError(stage, step, numbers)
            on_step(step + 1, options.steps, numbers)
    recalibrate(average, data.pixels)
    # Safetensors refuses the strides that training was fast with.
    return average.to(memory_format=torch.contiguous_format).eval()


def order(count: int, batch_size: int, seed: int, step: int) -> npt.NDArray[np.int64]:
    """Positions of step `step` in an endless run of shuffles of `count` images: (batch, 2).

    Column 0 is the image, column 1 the number of the pass that it belongs to.
    """
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    passes = places // count
    images = np.empty_like(places)
    for number in np.unique(passes):
        shuffled = np.random.default_rng((seed, int(number))).permutation(count)
        chosen = passes == number
        images[chosen] = shuffled[places[chosen] % count]
    return np.stack([images, passes], axis=1)


def _batch(
    data: TrainingSet,
    objective: Objective,
    batch_size: int,
    seed: int,
    step: int,
    device: torch.device,
) -> Batch:
    images, passes = order(len(data.pixels), batch_size, seed, step).T
    count = data.views.options.count
    # Fresh views begin behind the stored ones, so that no method sees the other's.
    views = passes % count if objective.stored_views else passes + count
    pixels = data.views.render(data.pixels, images, views, device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    labels = data.views.soft_labels(data.labels, data.classes, images, views)
    return Batch(images, views, pixels, labels.to(device))


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Vectors (biases, norms) are not decayed."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _set_rate(optimizer: torch.optim.Optimizer, options: TrainingOptions, step: int) -> None:
    """Linear warm-up, then a cosine to zero."""
    warmup = options.warmup * options.steps
    if step < warmup:
        factor = (step + 1) / (warmup + 1)
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, options.steps - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = options.learning_rate * factor


@torch.no_grad()
def _average(average: Student, student: Student, decay: float, step: int) -> None:
    """Exponential moving average of the weights, with a short memory at the start."""
    rate = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(student.parameters()), rate)


@torch.no_grad()
def recalibrate(student: Student, pixels: Pixels, batch_size: int = 256) -> None:
    """Recompute BatchNorm statistics on clean training images, which are what it will be shown."""
    norms = [m for m in student.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    student.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    for images in clean_batches(pixels, batch_size, student.mean.device):
        if len(images) > 1 or len(pixels) == 1:
            student(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    student.eval()


def clean_batches(pixels: Pixels, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Images as they are, in order: (n, 3, side, side) in [0, 1]."""
    for start in range(0, len(pixels), batch_size):
        raw = np.array(pixels[start : start + batch_size])
        yield torch.from_numpy(raw).to(device).float().div_(255)
