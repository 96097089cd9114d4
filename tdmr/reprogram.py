"""Stage 1: reprogram the frozen foundation into a task-driven proxy space.

The foundation's part is a matter of the view cache; what trains here is small, on stored features,
and takes seconds on a CPU: per tap a near-linear projection and a cosine task head, with a term
that preserves what the task's labels alone would collapse, and one that makes the views of one
image agree. The probabilities that stage 2 is taught come out of fold, so that a head which has
memorised a few images can't pass its certainty on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tdmr import probe
from tdmr.cache import ViewFeatures
from tdmr.config import ReprogramOptions
from tdmr.errors import NonFiniteLossError
from tdmr.losses import as_numbers, cka_distance, cosine_distance
from tdmr.proxy import ProxySpace, Targets

OnStep = Callable[[int, int, dict[str, float]], None]
STATISTICS_ROWS = 65_536  # rows that standardisation is estimated from, at most
PROBE_ROWS = 20_000  # rows that the closed-form probe is fitted on, at most


@dataclass(frozen=True)
class Teacher:
    """What stage 1 gives to stage 2: targets for any stored view, at a matrix product's price."""

    features: ViewFeatures
    space: ProxySpace
    ridge: probe.FoldedRidge
    device: torch.device

    @torch.no_grad()
    def targets(self, images: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> Targets:
        """Proxies (n, taps, proxy_dim) and out-of-fold logits (n, classes) of n stored views."""
        rows = torch.from_numpy(self.features.array[views, images].astype(np.float32))
        standard = self.space.standardise(rows.to(self.device))
        out_of_fold = self.ridge.out_of_fold(standard, torch.from_numpy(images).to(self.device))
        return Targets(self.space(standard), out_of_fold)


def reprogram(
    features: ViewFeatures,
    labels: Tensor,
    classes: int,
    options: ReprogramOptions,
    *,
    seed: int,
    device: torch.device,
    on_step: OnStep = lambda step, steps, losses: None,
) -> Teacher:
    """Train the proxy space on stored features; `labels` (images,) on the CPU.

    Raises NonFiniteLossError with its step.
    """
    torch.manual_seed(seed)
    space = ProxySpace(features.widths, options.proxy_dim, classes)
    _estimate_statistics(space, features, seed)
    space.to(device).train()
    optimizer = torch.optim.AdamW(
        space.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=options.learning_rate, total_steps=options.steps + 1, pct_start=0.1
    )
    for step in range(options.steps):
        parts = _step(space, features, labels, options, np.random.default_rng((seed, step)), device)
        optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        numbers = as_numbers(parts)
        if not np.isfinite(numbers["loss"]):
            raise NonFiniteLossError("reprogram", step, numbers)
        on_step(step + 1, options.steps, numbers)
    space.eval().requires_grad_(False)
    ridge = fit_probe(space, features, labels, classes, options, seed)
    return Teacher(features, space, ridge, device)


def _step(
    space: ProxySpace,
    features: ViewFeatures,
    labels: Tensor,
    options: ReprogramOptions,
    generator: np.random.Generator,
    device: torch.device,
) -> dict[str, Tensor]:
    """One batch of images, each in two views: the named parts of stage 1's loss."""
    views, images, _ = features.array.shape
    chosen = generator.integers(images, size=options.batch_size // 2)
    first, second = generator.integers(views, size=(2, len(chosen)))
    rows = np.concatenate([features.array[first, chosen], features.array[second, chosen]])
    standard = space.standardise(torch.from_numpy(rows.astype(np.float32)).to(device))
    y = labels[torch.from_numpy(chosen)].to(device).repeat(2)
    proxies = space(standard)  # (2 * images, taps, proxy_dim)
    logits = space.logits(proxies)
    task = torch.stack(
        [
            F.cross_entropy(logits[:, tap], y, label_smoothing=options.label_smoothing)
            for tap in range(logits.shape[1])
        ]
    ).mean()
    parts = torch.split(standard, space.widths, dim=1)
    preserve = torch.stack(
        [cka_distance(proxies[:, tap], part) for tap, part in enumerate(parts)]
    ).mean()
    consistency = cosine_distance(*proxies.chunk(2)).mean()
    loss = task + options.preserve * preserve + options.consistency * consistency
    return {"loss": loss, "task": task, "preserve": preserve, "consistency": consistency}


def _estimate_statistics(space: ProxySpace, features: ViewFeatures, seed: int) -> None:
    rows = sample_rows(features, STATISTICS_ROWS, seed)[0]
    space.mean.copy_(rows.mean(dim=0))
    space.std.copy_(rows.std(dim=0).clamp_min(1e-4))


def fit_probe(
    space: ProxySpace,
    features: ViewFeatures,
    labels: Tensor,
    classes: int,
    options: ReprogramOptions,
    seed: int,
) -> probe.FoldedRidge:
    """The ridge probe on standardised stored features, on the space's device."""
    rows, images = sample_rows(features, PROBE_ROWS, seed)
    device = space.mean.device
    standard = space.standardise(rows.to(device))
    folds = max(2, min(options.folds or 2, int(labels.bincount().max())))
    return probe.fit(standard, images.to(device), labels.to(device), classes, folds, seed)


def sample_rows(features: ViewFeatures, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """At most `most` stored views, spread evenly over images: rows (n, width), images (n,)."""
    views, images, width = features.array.shape
    per_image = max(1, min(views, most // images))
    kept = np.random.default_rng(seed).permutation(images)[: max(1, most // per_image)]
    kept.sort()
    rows = features.array[:per_image][:, kept].reshape(-1, width).astype(np.float32)
    return torch.from_numpy(rows), torch.from_numpy(np.tile(kept, per_image))
