"""What every format holds: the student with its normalisation before it and its softmax behind it.

images         (batch, channels, side, side), float32 in [0, 1]; 3 channels are RGB, 1 is grey
logits         (batch, classes)
probabilities  (batch, classes): softmax of logits / temperature
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import Tensor, nn

from tdmr.data.pixels import Pixels
from tdmr.feed import clean_batches
from tdmr.models import as_channels, normalisation
from tdmr.weights import TimmModel

BATCH = 32  # images at a time, wherever many are classified
INPUT, OUTPUTS = "images", ("logits", "probabilities")
CPU = torch.device("cpu")


class Classifier(nn.Module):
    """A packaged student, in eval mode, on the CPU."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: TimmModel, name: str, temperature: float = 1.0) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        mean, std = normalisation(model, name)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.temperature = temperature

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and calibrated probabilities."""
        logits = self.model((images - self.mean) / self.std)
        return logits, (logits / self.temperature).softmax(dim=1)

    @property
    def channels(self) -> int:
        """What the model takes: 3 (RGB) or 1 (grey)."""
        return self.mean.shape[1]

    @property
    def side(self) -> int:
        """Of its images, in pixels."""
        return int(self.model.pretrained_cfg["input_size"][-1])

    def inputs(self, pixels: Pixels, batch_size: int = BATCH) -> Iterator[Tensor]:
        """RGB pixels (n, 3, side, side) as `forward` takes them, batch by batch."""
        for images in clean_batches(pixels, batch_size, CPU):
            yield as_channels(images, self.channels)


def load(folder: Path) -> Classifier:
    """The student of a timm folder, as plain timm gives it."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return Classifier(model.eval(), "the student")


@torch.no_grad()
def logits_of(
    classifier: Classifier,
    pixels: Pixels,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> npt.NDArray[np.float32]:
    """The logits of images (n, 3, side, side): (n, classes)."""
    found, done = [], 0
    for images in classifier.inputs(pixels):
        found.append(classifier(images)[0].numpy())
        done += len(images)
        on_batch(done, len(pixels))
    return np.concatenate(found)
