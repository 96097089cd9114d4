"""What TDMR is compared with: the same student, the same budget, another objective."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tdmr.distil import TargetSource
from tdmr.losses import distillation
from tdmr.models import StudentOutput
from tdmr.training import Batch


class Scratch:
    """The student alone: labels, and fresh augmentation at every step."""

    stored_views = False

    def __init__(self, label_smoothing: float) -> None:
        self._label_smoothing = label_smoothing

    def modules(self) -> list[nn.Module]:
        """Nothing beside the student."""
        return []

    def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
        """Cross-entropy with the labels."""
        ce = F.cross_entropy(output.logits, batch.labels, label_smoothing=self._label_smoothing)
        return {"loss": ce}


class Distillation:
    """Plain knowledge distillation (Hinton et al., arXiv 1503.02531) from the probe, on the cache.

    The textbook's weights: 0.3 for the labels and 0.7 for the teacher.
    """

    stored_views = True

    def __init__(self, source: TargetSource, label_smoothing: float, temperature: float) -> None:
        self._source = source
        self._label_smoothing = label_smoothing
        self._temperature = temperature

    def modules(self) -> list[nn.Module]:
        """Nothing beside the student."""
        return []

    def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
        """Cross-entropy with the labels, and the divergence from the teacher."""
        targets = self._source.targets(batch.images, batch.views)
        ce = F.cross_entropy(output.logits, batch.labels, label_smoothing=self._label_smoothing)
        kd = distillation(output.logits, targets.logits, self._temperature)
        return {"loss": 0.3 * ce + 0.7 * kd, "ce": ce, "kd": kd}
