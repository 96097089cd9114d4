"""Stage 1: reprogram the frozen foundation into a task-driven proxy space.

The foundation's part is a matter of the view cache; what happens here works on stored features and
takes seconds on a CPU, in one of two modes:

closed_form  proxies are the standardised features, each dimension weighed by how much the task
             turns on it; the head is ridge regression on all taps. For few images: projections
             that are trained on them forget what the student could have learnt.
trained      per tap a linear projection and a cosine task head, with a term that preserves what
             the task's labels alone would collapse, and one that makes the views of one image
             agree; the head is the geometric mean of the trained ones and the closed form.

Penalty and sharpness of the closed form are chosen by folds of the training images: a head that had
memorised them would pass on nothing but its certainty. On request the targets come out of fold
altogether.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tdmr import checkpoint, probe
from tdmr.cache import ViewFeatures
from tdmr.checkpoint import Checkpoints
from tdmr.config import ReprogramOptions
from tdmr.errors import NonFiniteLossError
from tdmr.losses import as_numbers, cka_distance, cosine_distance
from tdmr.optim import adamw, set_rate
from tdmr.probe import Ridge
from tdmr.proxy import ProxySpace, Targets, relevance
from tdmr.views import Places, Views, to_device

OnStep = Callable[[int, int, dict[str, float]], None]
STAGE = "reprogram"
WARMUP = 0.1  # share of the steps in which the rate rises
STATISTICS_ROWS = 65_536  # rows that standardisation is estimated from, at most
PROBE_ROWS = 20_000  # rows that the closed-form probe is fitted on, at most


@dataclass(frozen=True)
class Teacher:
    """What stage 1 gives to stage 2: targets for any stored view, at a matrix product's price.

    `ridge` sees all taps and is half of the reprogrammed head; `probe` sees the last one alone, as
    a linear probe does, and is what plain distillation is taught from.
    """

    features: ViewFeatures
    space: ProxySpace
    ridge: probe.FoldedRidge
    probe: probe.FoldedRidge
    out_of_fold: bool
    device: torch.device

    @torch.no_grad()
    def targets(self, images: Places, views: Places) -> Targets:
        """Proxies (per tap (n, its dim)) and the head's logits (n, classes) of n stored views."""
        standard = self._standard(images, views)
        proxies = self.space(standard)
        if self.out_of_fold:
            places = torch.from_numpy(images).to(self.device)
            logits = self.ridge.out_of_fold(standard, places)
        else:
            logits = self.head_logits(standard, proxies)
        return Targets(proxies, logits, standard)

    @property
    def widths(self) -> Sequence[int]:
        """The width of each tap's features."""
        return self.space.widths

    @property
    def target_widths(self) -> Sequence[int]:
        """The width of each tap's proxies."""
        return self.space.dims

    @property
    def head(self) -> Ridge:
        """The closed form on standardised features of all taps, which a student can reuse."""
        return self.ridge.full

    def features_of(self, images: Places, views: Places) -> list[Tensor]:
        """The standardised features of n stored views: per tap (n, its width)."""
        return list(torch.split(self._standard(images, views), self.space.widths, dim=1))

    def head_logits(self, standard: Tensor, proxies: Sequence[Tensor]) -> Tensor:
        """The reprogrammed head: the closed form, together with the trained heads where they are.

        Their errors differ, so that together they are better than either. The mean of the two, not
        the sum: a head that is too certain teaches no more than the labels do.
        """
        closed = self.ridge.full.logits(standard)
        if self.space.heads is None:
            return closed
        trained = self.space.logits(proxies).mean(dim=1)
        return (F.log_softmax(trained, dim=1) + F.log_softmax(closed, dim=1)) / 2

    @torch.no_grad()
    def probe_targets(self, images: Places, views: Places) -> Tensor:
        """The plain probe's logits (n, classes) of n stored views."""
        return self.probe_logits(self._standard(images, views))

    def probe_logits(self, standard: Tensor) -> Tensor:
        """The plain probe's logits of standardised features: (n, sum of widths) to (n, classes)."""
        return self.probe.full.logits(standard[:, -self.space.widths[-1] :])

    def _standard(self, images: Places, views: Places) -> Tensor:
        rows = torch.from_numpy(self.features.array[views, images].astype(np.float32))
        return self.space.standardise(to_device(rows, self.device))


def reprogram(
    features: ViewFeatures,
    views: Views,
    labels: Tensor,
    classes: int,
    options: ReprogramOptions,
    *,
    seed: int,
    device: torch.device,
    on_step: OnStep = lambda step, steps, losses: None,
    checkpoints: Checkpoints = checkpoint.NONE,
) -> Teacher:
    """Make the proxy space from stored features; `labels` (images,) on the CPU.

    With `checkpoints`, a training goes on from the stage's last one. Raises NonFiniteLossError with
    its step, and Stopped.
    """
    torch.manual_seed(seed)
    in_training = options.trains(len(labels) / classes)
    space = ProxySpace(features.widths, options.proxy_dim if in_training else None, classes)
    _estimate_statistics(space, features, seed)
    space.to(device)

    def losses(step: int) -> dict[str, Tensor]:
        generator = np.random.default_rng((seed, step))
        return _step(space, features, views, labels, options, generator)

    if in_training:
        _train(space, losses, options, on_step, checkpoints)
    standard, images = _pure_rows(space, features, views, len(labels), seed)
    if not in_training:
        space.weight.copy_(relevance(standard, images, labels.to(device)))

    def closed_form(rows: Tensor) -> probe.FoldedRidge:
        folds = max(2, min(options.folds, int(labels.bincount().max())))
        return probe.fit(rows, images, labels.to(device), classes, folds, seed)

    last = standard[:, -space.widths[-1] :]
    return Teacher(
        features, space, closed_form(standard), closed_form(last), options.out_of_fold, device
    )


def _train(
    space: ProxySpace,
    losses: Callable[[int], dict[str, Tensor]],
    options: ReprogramOptions,
    on_step: OnStep,
    checkpoints: Checkpoints,
) -> None:
    """Fit `space` in place."""
    optimizer = adamw(space.train(), options.weight_decay)

    def state() -> dict[str, Tensor]:
        return {
            **checkpoint.module_state("space", space),
            **checkpoint.optimizer_state("optimizer", optimizer),
        }

    step, saved = 0, checkpoints.find(STAGE)
    if saved:
        checkpoint.restore_module("space", space, saved.tensors)
        checkpoint.restore_optimizer("optimizer", optimizer, saved.tensors)
        step = saved.step
    while step < options.steps:
        set_rate(optimizer, step, options.steps, options.learning_rate, WARMUP)
        parts = losses(step)
        optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()  # type: ignore[no-untyped-call]  # torch's own has no types
        optimizer.step()
        numbers = as_numbers(parts)
        if not np.isfinite(numbers["loss"]):
            raise NonFiniteLossError(STAGE, step, numbers, options.learning_rate)
        step += 1
        on_step(step, options.steps, numbers)
        if step < options.steps:
            checkpoints.after_step(STAGE, step, state)
    if not (saved and saved.done):
        checkpoints.save(STAGE, state(), step=options.steps, done=True)
    space.eval().requires_grad_(False)


def _step(
    space: ProxySpace,
    features: ViewFeatures,
    views: Views,
    labels: Tensor,
    options: ReprogramOptions,
    generator: np.random.Generator,
) -> dict[str, Tensor]:
    """One batch of images, each in two views: the named parts of stage 1's loss."""
    count, images, _ = features.array.shape
    device, classes = space.mean.device, space.heads.shape[1]
    chosen = np.tile(generator.integers(images, size=options.batch_size // 2), 2)
    seen = generator.integers(count, size=len(chosen))
    rows = torch.from_numpy(features.array[seen, chosen].astype(np.float32))
    standard = space.standardise(rows.to(device))
    y = views.soft_labels(labels, classes, chosen, seen).to(device)
    proxies = space(standard)
    logits = space.logits(proxies)
    task = torch.stack(
        [
            F.cross_entropy(logits[:, tap], y, label_smoothing=options.label_smoothing)
            for tap in range(logits.shape[1])
        ]
    ).mean()
    parts = torch.split(standard, space.widths, dim=1)
    preserve = torch.stack(
        [cka_distance(proxy, part) for proxy, part in zip(proxies, parts, strict=True)]
    ).mean()
    pairs = [cosine_distance(*proxy.chunk(2)) for proxy in proxies]
    consistency = torch.stack(pairs).mean()
    loss = task + options.preserve * preserve + options.consistency * consistency
    return {"loss": loss, "task": task, "preserve": preserve, "consistency": consistency}


def _estimate_statistics(space: ProxySpace, features: ViewFeatures, seed: int) -> None:
    rows = sample_rows(features, STATISTICS_ROWS, seed)[0]
    space.mean.copy_(rows.mean(dim=0))
    space.std.copy_(rows.std(dim=0).clamp_min(1e-4))


def _pure_rows(
    space: ProxySpace, features: ViewFeatures, views: Views, count: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Standardised stored features (n, sum of widths) of unmixed views, and their images (n,).

    A mixture with an image of another fold would tell a fold what it must not know.
    """
    rows, images, numbers = sample_rows(features, PROBE_ROWS, seed)
    pure = views.mixture(images.numpy(), numbers.numpy(), count).share == 1
    if np.unique(images.numpy()[pure]).size == np.unique(images.numpy()).size:
        rows, images = rows[torch.from_numpy(pure)], images[torch.from_numpy(pure)]
    device = space.mean.device
    return space.standardise(rows.to(device)), images.to(device)


def sample_rows(features: ViewFeatures, most: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """At most `most` stored views, spread over images: rows (n, width), images and views (n,)."""
    views, images, width = features.array.shape
    per_image = max(1, min(views, most // images))
    kept = np.random.default_rng(seed).permutation(images)[: max(1, most // per_image)]
    kept.sort()
    rows = features.array[:per_image][:, kept].reshape(-1, width).astype(np.float32)
    places, numbers = np.tile(kept, per_image), np.repeat(np.arange(per_image), len(kept))
    return torch.from_numpy(rows), torch.from_numpy(places), torch.from_numpy(numbers)
