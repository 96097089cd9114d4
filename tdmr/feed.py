"""What a training step is given: which images, in which views, and how they look.

Step `s` is a pure function of (seed, s). A resumed run, or one spread over processes, sees the
batches of the uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tdmr.data.pixels import Pixels
from tdmr.views import Views


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


def batch_at(
    data: TrainingSet,
    step: int,
    *,
    stored_views: bool,
    batch_size: int,
    seed: int,
    device: torch.device,
) -> Batch:
    """The batch of one step: stored views replayed in turn, or fresh ones that never repeat."""
    images, passes = order(len(data.pixels), batch_size, seed, step).T
    count = data.views.options.count
    # Fresh views begin behind the stored ones, so that no method sees the other's.
    views = passes % count if stored_views else passes + count
    pixels = data.views.render(data.pixels, images, views, device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    labels = data.views.soft_labels(data.labels, data.classes, images, views)
    return Batch(images, views, pixels, labels.to(device))


def clean_batches(pixels: Pixels, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Images as they are, in order: (n, 3, side, side) in [0, 1]."""
    for start in range(0, len(pixels), batch_size):
        raw = np.array(pixels[start : start + batch_size])
        yield torch.from_numpy(raw).to(device).float().div_(255)
