"""What TDMR is compared with: the same student, the same budget, another objective.

All but `Scratch` learn from the same frozen foundation, and all but `KnowledgeOnline` from the
features of the same stored views. Weights of the parts are those of the papers where they name
them, otherwise 0.3 for the labels and 0.7 for the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmr.data.pixels import Pixels
from tdmr.feed import Batch
from tdmr.losses import cka_distance, distillation, relation
from tdmr.models import Foundation, StudentOutput
from tdmr.probe import Ridge
from tdmr.training import OwnHead
from tdmr.views import Places, Views

CE, KD = 0.3, 0.7
AFT_WEIGHT = 3.0  # the smallest of the weights that AFT's authors search
SIMKD_HIDDEN = 2  # the projector's hidden width, in widths of its input

# Logits (n, classes) of n stored views.
LogitSource = Callable[[Places, Places], Tensor]


class FeatureSource(Protocol):
    """The foundation's standardised features of stored views, before any projection."""

    @property
    def widths(self) -> Sequence[int]:
        """The width of each tap."""

    def features_of(self, images: Places, views: Places) -> list[Tensor]:
        """Per tap (n, its width)."""


class Scratch(OwnHead):
    """The student alone: labels, and fresh augmentation at every step."""

    stored_views = False

    def __init__(self, label_smoothing: float) -> None:
        self._label_smoothing = label_smoothing

    def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
        """Cross-entropy with the labels."""
        ce = F.cross_entropy(output.logits, batch.labels, label_smoothing=self._label_smoothing)
        return {"loss": ce}


class Knowledge(OwnHead):
    """Plain knowledge distillation (Hinton et al., arXiv 1503.02531) from a linear probe.

    The probe is the closed-form one on the foundation's last features, on the views of the cache.
    """

    stored_views = True

    def __init__(self, teacher: LogitSource, label_smoothing: float, temperature: float) -> None:
        self._teacher = teacher
        self._label_smoothing = label_smoothing
        self._temperature = temperature

    def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
        """Cross-entropy with the labels, and the divergence from the teacher."""
        logits = self._teacher(batch.images, batch.views)
        ce = F.cross_entropy(output.logits, batch.labels, label_smoothing=self._label_smoothing)
        kd = distillation(output.logits, logits, self._temperature)
        return {"loss": CE * ce + KD * kd, "ce": ce, "kd": kd}


class KnowledgeOnline(Knowledge):
    """The same with the foundation in the loop: fresh views, each seen by both models."""

    stored_views = False


class Online:
    """Logits of any view by showing it to the foundation: what `KnowledgeOnline` learns from."""

    def __init__(
        self,
        foundation: Foundation,
        pixels: Pixels,
        views: Views,
        classify: Callable[[Tensor], Tensor],
        device: torch.device,
    ) -> None:
        self._foundation = foundation
        self._pixels = pixels
        self._views = views
        self._classify = classify
        self._device = device

    @torch.no_grad()
    def __call__(self, images: Places, views: Places) -> Tensor:
        """Logits (n, classes)."""
        seen = self._views.render(self._pixels, images, views, self._device)
        return self._classify(torch.cat(self._foundation.features(seen), dim=1))


class FitNet(Knowledge):
    """Hints (FitNets, arXiv 1412.6550) at all taps, with plain distillation.

    A regressor per tap meets the standardised raw features in the mean square.
    """

    def __init__(
        self,
        teacher: LogitSource,
        features: FeatureSource,
        regressors: nn.Module,
        label_smoothing: float,
        temperature: float,
    ) -> None:
        super().__init__(teacher, label_smoothing, temperature)
        self._features = features
        self._regressors = regressors

    def modules(self) -> list[nn.Module]:
        """The regressors."""
        return [self._regressors]

    def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
        """Plain distillation, and the hints' mean square error."""
        parts = super().__call__(batch, output, t)
        theirs = self._features.features_of(batch.images, batch.views)
        ours = self._regressors(output.taps)
        hint = torch.stack([F.mse_loss(a, b) for a, b in zip(ours, theirs, strict=True)]).mean()
        return {**parts, "loss": parts["loss"] + hint, "hint": hint}


class SimKD:
    """The teacher's classifier reused (SimKD, arXiv 2203.14001).

    A projector brings the student's last features to the foundation's; the probe classifies them.
    Nothing but the mean square of the two is trained on.
    """

    stored_views = True

    def __init__(self, features: FeatureSource, width: int, probe: Ridge) -> None:
        self._features = features
        self._probe = probe
        hidden = SIMKD_HIDDEN * width
        self._projector = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, features.widths[-1])
        ).to(probe.weight.device)

    def modules(self) -> list[nn.Module]:
        """The projector."""
        return [self._projector]

    def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
        """The mean square distance of the last features."""
        theirs = self._features.features_of(batch.images, batch.views)[-1]
        return {"loss": F.mse_loss(self._projector(output.taps[-1]), theirs)}

    def logits(self, output: StudentOutput) -> Tensor:
        """The probe's logits of the projected features."""
        return self._probe.logits(self._projector(output.taps[-1]))


class AFT(OwnHead):
    """Adaptive feature transfer (arXiv 2406.07337): the kernels of the last features agree.

    Learned gates let the student leave out features that don't serve the task.
    """

    stored_views = True

    def __init__(
        self, features: FeatureSource, label_smoothing: float, device: torch.device
    ) -> None:
        self._features = features
        self._label_smoothing = label_smoothing
        self._gates = _Gates(features.widths[-1]).to(device)

    def modules(self) -> list[nn.Module]:
        """The gates."""
        return [self._gates]

    def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
        """Cross-entropy with the labels, and the distance of the kernels."""
        theirs = self._gates(self._features.features_of(batch.images, batch.views)[-1])
        ce = F.cross_entropy(output.logits, batch.labels, label_smoothing=self._label_smoothing)
        kernel = relation(output.taps[-1], theirs)
        return {"loss": ce + AFT_WEIGHT * kernel, "ce": ce, "kernel": kernel}


class _Gates(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.openness = nn.Parameter(torch.full((width,), 2.0))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.openness.sigmoid()


class OneStage:
    """One-stage reprogramming distillation (RD, arXiv 2407.06504).

    A reprogramming module on the frozen last features, an adapter on the student's, and a
    classifier that both share are trained together; CKA brings the two spaces close.
    """

    stored_views = True

    def __init__(
        self,
        features: FeatureSource,
        width: int,
        dim: int,
        classes: int,
        label_smoothing: float,
        device: torch.device,
    ) -> None:
        self._features = features
        self._label_smoothing = label_smoothing
        theirs = features.widths[-1]
        self._reprogram = nn.Sequential(nn.Linear(theirs, dim), nn.GELU(), nn.Linear(dim, dim)).to(
            device
        )
        self._adapter = nn.Linear(width, dim).to(device)
        self._classifier = nn.Linear(dim, classes).to(device)

    def modules(self) -> list[nn.Module]:
        """Reprogramming module, adapter, and shared classifier."""
        return [self._reprogram, self._adapter, self._classifier]

    def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
        """Cross-entropy of both sides through the shared classifier, and 1 - CKA."""
        z = self._reprogram(self._features.features_of(batch.images, batch.views)[-1])
        a = self._adapter(output.taps[-1])
        ce, theirs = (
            F.cross_entropy(
                self._classifier(x), batch.labels, label_smoothing=self._label_smoothing
            )
            for x in (a, z)
        )
        cka = cka_distance(a, z)
        return {"loss": ce + theirs + cka, "ce": ce, "foundation_ce": theirs, "cka": cka}

    def logits(self, output: StudentOutput) -> Tensor:
        """The shared classifier's logits of the adapted features."""
        logits: Tensor = self._classifier(self._adapter(output.taps[-1]))
        return logits
