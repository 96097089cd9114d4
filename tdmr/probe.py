"""Closed-form classifiers on frozen features: ridge regression to the classes, chosen by folds.

What a foundation knows about the task without any training of ours: the probe baseline, and the
probabilities that stage 2 is taught, in sample or out of fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # relative to the kernel's mean diagonal
SHARPNESS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # candidates that turn scores into logits


@dataclass(frozen=True)
class Ridge:
    """Scores are `standard @ weight + bias`; times `sharpness` they are logits."""

    weight: Tensor  # (features, classes)
    bias: Tensor  # (classes,)
    sharpness: float

    def logits(self, standard: Tensor) -> Tensor:
        """Logits of standardised features: (n, features) to (n, classes)."""
        return (standard @ self.weight + self.bias) * self.sharpness


@dataclass(frozen=True)
class FoldedRidge:
    """A ridge on all training images, one per fold without that fold's, and how good they were.

    `fold` (images,) says which of `folds` never saw an image; `accuracy` is out of fold.
    """

    full: Ridge
    folds: list[Ridge]
    fold: Tensor
    accuracy: float

    def out_of_fold(self, standard: Tensor, images: Tensor) -> Tensor:
        """Logits of rows by the ridge that never saw their image: (n, features) to (n, classes)."""
        logits = self.full.logits(standard)
        for number, ridge in enumerate(self.folds):
            chosen = self.fold[images] == number
            logits[chosen] = ridge.logits(standard[chosen])
        return logits


def fold_numbers(labels: Tensor, folds: int, seed: int) -> Tensor:
    """A stratified fold for each image: (images,) in [0, folds).

    The number of folds shrinks to the largest class; a class of one is in a fold by itself.
    """
    generator = np.random.default_rng(seed)
    numbers = torch.zeros(len(labels), dtype=torch.long, device=labels.device)
    for label in torch.unique(labels):
        members = torch.nonzero(labels == label).flatten().cpu().numpy()
        shuffled = generator.permutation(members)
        places = torch.from_numpy(shuffled).to(labels.device)
        numbers[places] = torch.arange(len(members), device=labels.device) % folds
    return numbers


def fit(
    standard: Tensor, images: Tensor, labels: Tensor, classes: int, folds: int, seed: int
) -> FoldedRidge:
    """Fit on standardised rows (n, features) of images (n,), with `labels` (images,) by image.

    Penalty and sharpness are chosen by the likelihood of held-out folds of training images.
    """
    fold = fold_numbers(labels, folds, seed)
    targets = torch.nn.functional.one_hot(labels[images], classes).float()
    row_fold = fold[images]
    held_out: dict[float, Tensor] = {p: torch.empty_like(targets) for p in PENALTIES}
    ridges: dict[float, list[tuple[Tensor, Tensor]]] = {p: [] for p in PENALTIES}
    for number in range(int(fold.max()) + 1):
        inside, outside = row_fold != number, row_fold == number
        solved = _solve(standard[inside], targets[inside], PENALTIES)
        for penalty, (weight, bias) in zip(PENALTIES, solved, strict=True):
            held_out[penalty][outside] = standard[outside] @ weight + bias
            ridges[penalty].append((weight, bias))
    penalty, sharpness = min(
        ((p, s) for p in PENALTIES for s in SHARPNESS),
        key=lambda ps: _negative_log_likelihood(held_out[ps[0]] * ps[1], labels[images]),
    )
    accuracy = (held_out[penalty].argmax(1) == labels[images]).float().mean().item()
    ((weight, bias),) = _solve(standard, targets, (penalty,))
    return FoldedRidge(
        full=Ridge(weight, bias, sharpness),
        folds=[Ridge(w, b, sharpness) for w, b in ridges[penalty]],
        fold=fold,
        accuracy=accuracy,
    )


def _solve(x: Tensor, y: Tensor, penalties: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """Ridge with an unpenalised bias, in double precision, by one eigendecomposition."""
    x, y = x.double(), y.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    wide = x.shape[1] > x.shape[0]
    gram = x @ x.T if wide else x.T @ x
    values, vectors = torch.linalg.eigh(gram)
    unit = gram.diagonal().mean().clamp_min(1e-12)
    right = vectors.T @ (y if wide else x.T @ y)
    solved = []
    for penalty in penalties:
        inner = vectors @ (right / (values.clamp_min(0) + penalty * unit).unsqueeze(1))
        weight = x.T @ inner if wide else inner
        solved.append((weight.float(), (mean_y - mean_x @ weight).float()))
    return solved


def _negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    return torch.nn.functional.cross_entropy(logits, labels).item()
