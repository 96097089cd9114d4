"""Stage 2: reprogram the student by progressive distillation from the proxy space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmr.config import DistilOptions
from tdmr.feed import Batch
from tdmr.losses import cosine_distance, distillation, relation
from tdmr.models import Student, StudentOutput
from tdmr.probe import Ridge
from tdmr.proxy import Targets
from tdmr.readout import ReusedHead
from tdmr.schedule import Schedule, Weights
from tdmr.training import OwnHead


class TargetSource(Protocol):
    """Anything that gives the targets of stored views: stage 1's teacher, or a control."""

    @property
    def target_widths(self) -> Sequence[int]:
        """The width of each tap's target."""

    def targets(self, images: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> Targets:
        """Targets of n views."""

    @property
    def head(self) -> Ridge:
        """What classifies by `Targets.standard`."""


class Adapters(nn.Module):
    """Maps the student's taps into the proxy space; trained with it, never exported."""

    def __init__(self, widths: Sequence[int], targets: Sequence[int]) -> None:
        super().__init__()
        # Where the student has fewer levels than the foundation, its last one serves several.
        self.sources = [min(tap, len(widths) - 1) for tap in range(len(targets))]
        self.layers = nn.ModuleList(
            nn.Linear(widths[s], target) for s, target in zip(self.sources, targets, strict=True)
        )

    def forward(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """Student taps, each (n, its width), to one (n, its target's width) per target tap."""
        return [layer(taps[s]) for layer, s in zip(self.layers, self.sources, strict=True)]


class ProgressiveDistillation(OwnHead):
    """The objective of stage 2: labels, the proxy head's probabilities, and proxies at depths.

    With a reused head in the student, what that reads is met in the mean square, too.
    """

    stored_views = True

    def __init__(
        self,
        source: TargetSource,
        adapters: Adapters,
        schedule: Schedule,
        label_smoothing: float,
    ) -> None:
        self._source = source
        self._adapters = adapters
        self._schedule = schedule
        self._label_smoothing = label_smoothing

    def modules(self) -> list[nn.Module]:
        """The adapters."""
        return [self._adapters]

    def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
        """The loss and its parts at progress `t`."""
        weights = self._schedule.at(t)
        options = self._schedule.options
        targets = self._source.targets(batch.images, batch.views)
        ce = F.cross_entropy(output.logits, batch.labels, label_smoothing=self._label_smoothing)
        kd = distillation(output.logits, targets.logits, options.temperature)
        proxy, rel = self._proxy_terms(output, targets, weights, options)
        loss = weights.ce * ce + weights.kd * kd + weights.proxy * proxy + weights.relation * rel
        parts = {"ce": ce, "kd": kd, "proxy": proxy, "relation": rel}
        if output.read.shape[1]:
            parts["read"] = F.mse_loss(output.read, targets.standard)
            loss = loss + weights.read * parts["read"]
        return {"loss": loss, **parts}

    def _proxy_terms(
        self, output: StudentOutput, targets: Targets, weights: Weights, options: DistilOptions
    ) -> tuple[Tensor, Tensor]:
        proxy = rel = output.logits.new_zeros(())
        adapted = self._adapters(output.taps)
        for tap, (mine, weight) in enumerate(zip(adapted, weights.taps, strict=True)):
            if not weight:
                continue
            # A share, not a number: targets other than proxies have widths of their own.
            width = max(1, round(weights.width * mine.shape[1]))
            ours, theirs = mine[:, :width], targets.proxies[tap][:, :width]
            if options.proxy:
                proxy = proxy + weight * cosine_distance(ours, theirs).mean()
            if options.relation:
                rel = rel + weight * relation(ours, theirs)
        return proxy, rel


def adapters_for(
    widths: Sequence[int], targets: Sequence[int], seed: int, device: torch.device
) -> Adapters:
    """Freshly initialised adapters from student taps to targets, a function of `seed`."""
    torch.manual_seed(seed)
    return Adapters(widths, targets).to(device)


def reuse_head(student: Student, head: Ridge, seed: int) -> bool:
    """Let `student` be classified by `head`, if it can; its adapter is a function of `seed`.

    It can't if its classifier is no linear map, or two of them.
    """
    width = student.classifier_width
    if width is None:
        return False
    torch.manual_seed(seed)
    student.classify_by(ReusedHead.of(head, width).to(student.mean.device))
    return True
