"""Accuracy on held-out images, with an honest interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tdmr.data.pixels import Pixels
from tdmr.evaluation.figures import wilson
from tdmr.feed import clean_batches


@dataclass(frozen=True)
class Accuracy:
    """Share of `count` images classified right, and its 95 % interval."""

    value: float
    low: float
    high: float
    count: int

    def as_dict(self) -> dict[str, float | int | list[float]]:
        """As metrics.json holds it."""
        return {
            "accuracy": round(self.value, 6),
            "interval": [round(self.low, 6), round(self.high, 6)],
            "images": self.count,
        }


@torch.no_grad()
def predict(
    classify: Callable[[Tensor], Tensor],
    pixels: Pixels,
    device: torch.device,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
    batch_size: int = 128,
) -> Tensor:
    """The class of every image as it is, unaugmented: (images,)."""
    found, done = [], 0
    for images in clean_batches(pixels, batch_size, device):
        found.append(classify(images).argmax(dim=1).cpu())
        done += len(images)
        on_batch(done, len(pixels))
    return torch.cat(found)


def accuracy(predicted: Tensor, labels: Tensor) -> Accuracy:
    """How many of `predicted` (images,) equal `labels` (images,)."""
    right = int((predicted == labels).sum())
    low, high = wilson(right, len(labels))
    return Accuracy(right / len(labels), low, high, len(labels))
