"""What the foundation's features say about a dataset: near-duplicates, leaks, likely mislabels.

Near-duplicates are looked for among each image's nearest neighbours in feature space, where an
image and its re-encoded, rescaled, recoloured or cropped copy lie together, and judged by their
pixels: one is laid over the other at several scales and places, and what remains different is
compared with what remains of the dataset's ordinary nearest neighbours. So the same rule serves
images that are all alike and images of which no two are.

Mislabels follow confident learning (Northcutt, Jiang, Chuang: JAIR 2021): by probabilities from
folds that never saw the image, an image belongs to another class than its own, and to it as surely
as that class's own images do on average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tdmr import probe
from tdmr.cache import plain_features
from tdmr.data.index import DatasetIndex
from tdmr.data.pixels import Pixels
from tdmr.store import ArrayStore
from tdmr.task import Task, labels

MOST_IMAGES = 50_000  # that are compared with each other: about 10 kB each
NEIGHBOURS = 3  # of each image that are laid over it
SIDE = 24  # pixels of the square in which two images are compared
SCALES = (1.0, 0.97, 0.94, 0.91)  # of the window of one image that is laid over the other
PLACES = 5  # of a window along each side
LIKE = 1 / 10  # of the ordinary difference: what is less is a near-duplicate
SURE = 0.9  # correlation below which nothing is a near-duplicate
FOLDS = 5  # by which labels are doubted, at most
ROWS = 1024  # images compared with all others at once
MOST = 500  # findings of each kind that are listed
PAIRS = 4096  # pairs laid over each other at once

OnImages = Callable[[int, int], None]


@dataclass(frozen=True)
class Pair:
    """Two images that show the same: their places in the dataset, and the correlation (to 1)."""

    first: int
    second: int
    similarity: float


@dataclass(frozen=True)
class Suspect:
    """An image whose label is doubted: `score` is the probability of `suggested`, out of fold."""

    image: int
    label: int
    suggested: int
    score: float


@dataclass(frozen=True)
class Audit:
    """Near-duplicates within a split, leaks between training and held-out images, mislabels."""

    duplicates: list[Pair]
    leaks: list[Pair]
    mislabels: list[Suspect]


def look(
    task: Task,
    index: DatasetIndex,
    store: ArrayStore,
    on_images: OnImages = lambda done, total: None,
) -> dict[str, Any] | None:
    """Audit a task's training and held-out images, as JSON; numbers are places in `index`.

    The foundation sees each image once, as it is; what it says is stored, and reused.
    `on_images(done, total)` is told of those that it had to see. None for more than MOST_IMAGES.
    """
    parts = (index.split("train"), index.held_out)
    if sum(map(len, parts)) > MOST_IMAGES:
        return None
    pixels = (task.images.train_foundation, task.images.held_out_foundation)
    features: list[npt.NDArray[np.float16]] = []
    total = sum(map(len, parts))
    for part, each in zip(parts, pixels, strict=True):
        before = sum(len(rows) for rows in features)

        def seen(done: int, _: int, before: int = before) -> None:
            on_images(before + done, total)

        hashes = [image.sha256 for image in part]
        features.append(plain_features(store, task.foundation, each, hashes, seen))
    images = [*parts[0], *parts[1]]
    found = of_images(
        torch.from_numpy(np.concatenate(features)).float(),
        pixels,
        labels(images, index.classes),
        torch.arange(len(images)) < len(parts[0]),
        len(index.classes),
        task.options.seed,
    )
    numbers = {image.file: number for number, image in enumerate(index.images)}
    told = [{"number": numbers[image.file], "file": image.source} for image in images]
    return described(found, told, index.classes)


def of_images(
    features: Tensor,
    pixels: Sequence[Pixels],
    classified: Tensor,
    trained: Tensor,
    classes: int,
    seed: int,
) -> Audit:
    """Look at a whole dataset.

    `features` (images, width) are a frozen foundation's of the images as they are, `pixels` the
    same images in parts of (part, 3, side, side), `classified` (images,) their classes, and
    `trained` (images,) says which of them are for training.
    """
    standard = _standardised(features)
    pairs = near_duplicates(standard, pixels)
    across = [bool(trained[pair.first] != trained[pair.second]) for pair in pairs]
    return Audit(
        duplicates=[pair for pair, leak in zip(pairs, across, strict=True) if not leak],
        leaks=[pair for pair, leak in zip(pairs, across, strict=True) if leak],
        mislabels=mislabels(standard, classified, trained, classes, seed),
    )


def near_duplicates(standard: Tensor, pixels: Sequence[Pixels]) -> list[Pair]:
    """Pairs of images that show the same, the most alike first."""
    if len(standard) < 3:
        return []
    pairs = _neighbours(standard)
    small = torch.cat([_small(part) for part in pixels])
    found = torch.cat([_overlaid(small, part) for part in torch.split(pairs, PAIRS)])
    ordinary = float((1 - found).median())
    same = (1 - found <= LIKE * ordinary) & (found >= SURE)
    chosen = torch.nonzero(same).flatten()
    return sorted(
        (
            Pair(int(pairs[place, 0]), int(pairs[place, 1]), round(float(found[place]), 6))
            for place in chosen
        ),
        key=lambda pair: (-pair.similarity, pair.first, pair.second),
    )


def mislabels(
    standard: Tensor, classified: Tensor, trained: Tensor, classes: int, seed: int
) -> list[Suspect]:
    """Images that belong to another class than theirs, the surest first."""
    rows = torch.nonzero(trained).flatten()
    places = torch.arange(len(rows))
    folds = max(2, min(FOLDS, int(classified[rows].bincount().max())))
    ridge = probe.fit(standard[rows], places, classified[rows], classes, folds, seed)
    logits = ridge.full.logits(standard)
    logits[rows] = ridge.out_of_fold(standard[rows], places)
    likely = logits.softmax(dim=1)
    own = likely.gather(1, classified[:, None]).flatten()
    # Of classes with no image there is nothing to be as sure of.
    usual = torch.full((classes,), 2.0)
    for label in torch.unique(classified):
        usual[label] = own[classified == label].mean()
    sure = likely.masked_fill(likely < usual, 0.0)
    sure.scatter_(1, classified[:, None], 0.0)
    score, suggested = sure.max(dim=1)
    doubted = torch.nonzero((score > 0) & (score > own)).flatten()
    return sorted(
        (
            Suspect(
                image, int(classified[image]), int(suggested[image]), round(float(score[image]), 6)
            )
            for image in doubted.tolist()
        ),
        key=lambda suspect: (-suspect.score, suspect.image),
    )


def _standardised(features: Tensor) -> Tensor:
    spread, mean = torch.std_mean(features.float(), dim=0, correction=0)
    return (features.float() - mean) / (spread + 1e-6)


def _neighbours(standard: Tensor) -> Tensor:
    """Each image with its nearest ones by cosine, every pair once: (pairs, 2), the lower first."""
    directions = F.normalize(standard, dim=1)
    count = min(NEIGHBOURS, len(directions) - 1)
    found = []
    for start in range(0, len(directions), ROWS):
        near = directions[start : start + ROWS] @ directions.T
        rows = torch.arange(len(near))
        near[rows, rows + start] = -torch.inf
        others = near.topk(count, dim=1).indices
        found.append(torch.stack([(rows + start)[:, None].expand_as(others), others], dim=2))
    pairs = torch.cat(found).flatten(0, 1).sort(dim=1).values
    unique: Tensor = torch.unique(pairs, dim=0)
    return unique


def _small(pixels: Pixels) -> Tensor:
    """Grey images of SIDE x SIDE, in [0, 1]: (images, 1, SIDE, SIDE)."""
    return torch.cat(
        [
            F.interpolate(
                torch.from_numpy(pixels[start : start + ROWS].copy()).float().mean(1, True) / 255,
                size=(SIDE, SIDE),
                mode="bilinear",
                antialias=True,
                align_corners=False,
            )
            for start in range(0, len(pixels), ROWS)
        ]
    )


def _overlaid(images: Tensor, pairs: Tensor) -> Tensor:
    """The best correlation of any window of one with the whole of the other, for each pair."""
    first, second = images[pairs[:, 0]], images[pairs[:, 1]]
    best = torch.full((len(pairs),), -1.0)
    for window in _windows():
        for inner, whole in ((first, second), (second, first)):
            grid = window.expand(len(inner), -1, -1, -1)
            seen = F.grid_sample(inner, grid, padding_mode="border", align_corners=False)
            best = torch.maximum(best, (_unit(seen) * _unit(whole)).sum(dim=1))
    return best


def _windows() -> list[Tensor]:
    """Sampling grids of every window: (1, SIDE, SIDE, 2)."""
    found = []
    for scale in SCALES:
        room = 1 - scale
        shifts = torch.linspace(-room, room, PLACES).tolist() if room else [0.0]
        for right in shifts:
            for down in shifts:
                theta = torch.tensor([[[scale, 0.0, right], [0.0, scale, down]]])
                found.append(F.affine_grid(theta, [1, 1, SIDE, SIDE], align_corners=False))
    return found


def _unit(images: Tensor) -> Tensor:
    """Flattened, without the mean, of length one: (images, pixels)."""
    flat = images.flatten(1)
    return F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)


def described(
    found: Audit, images: Sequence[dict[str, Any]], classes: Sequence[str], most: int = MOST
) -> dict[str, Any]:
    """The audit as JSON holds it, at most `most` findings of each kind, and how many there are.

    `images` say what each audited image is to be called.
    """

    def pairs(each: list[Pair]) -> list[dict[str, Any]]:
        return [
            {"images": [images[pair.first], images[pair.second]], "similarity": pair.similarity}
            for pair in each[:most]
        ]

    doubts = [
        {
            "image": images[each.image],
            "label": classes[each.label],
            "suggested": classes[each.suggested],
            "score": each.score,
        }
        for each in found.mislabels[:most]
    ]
    return {
        "counts": {
            "duplicates": len(found.duplicates),
            "leaks": len(found.leaks),
            "mislabels": len(found.mislabels),
        },
        "duplicates": pairs(found.duplicates),
        "leaks": pairs(found.leaks),
        "mislabels": doubts,
    }
