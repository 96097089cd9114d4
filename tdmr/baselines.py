"""What TDMR is compared with: the same student, the same budget, another objective."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from tdmr.losses import distillation
from tdmr.models import StudentOutput
from tdmr.training import Batch
from tdmr.views import Places

# Logits (n, classes) of n stored views.
LogitSource = Callable[[Places, Places], Tensor]


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
    """Plain knowledge distillation (Hinton et al., arXiv 1503.02531) from a linear probe.

    The probe is the closed-form one on the foundation's last features, on the views of the cache.

    The textbook's weights: 0.3 for the labels and 0.7 for the teacher.
    """

    stored_views = True

    def __init__(self, teacher: LogitSource, label_smoothing: float, temperature: float) -> None:
        self._teacher = teacher
        self._label_smoothing = label_smoothing
        self._temperature = temperature

    def modules(self) -> list[nn.Module]:
        """Nothing beside the student."""
        return []

    def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
        """Cross-entropy with the labels, and the divergence from the teacher."""
        logits = self._teacher(batch.images, batch.views)
        ce = F.cross_entropy(output.logits, batch.labels, label_smoothing=self._label_smoothing)
        kd = distillation(output.logits, logits, self._temperature)
        return {"loss": 0.3 * ce + 0.7 * kd, "ce": ce, "kd": kd}
