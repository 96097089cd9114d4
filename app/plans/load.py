"""What an order amounts to: images, views, steps, bytes. Loads neither torch nor a model.

Images, views and steps are exact. Bytes of features and of memory are reckoned from the catalog's
parameters and GMACs, and nothing more than an estimate.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass

from app.models import Dataset
from tdmr import catalog
from tdmr.config import JobSpec

FLOAT, HALF = 4, 2  # bytes
# Weights, gradient, two moments of the optimiser, and the average.
TRAINED_COPIES = 5
# A forward pass leaves some 6 million values per image and sqrt(GMACs): 12 million for ResNet-50
# (4.1 GMACs; the tables of timm say 11.1), 1.5 for MobileNetV3-small. With gradients, three times.
VALUES_PER_ROOT = 6e6
KEPT = 3
CACHE_BATCH = 128  # images that the foundation sees at once (tdmr.cache)
BLOCKS = 12  # a transformer's usual depth, from which its width follows: 12 width^2 a block

_PATCH = re.compile(r"patch(\d+)")


@dataclass(frozen=True)
class Load:
    """A job in numbers; `views` is K, of each training image."""

    train: int
    held_out: int
    classes: int
    views: int

    @property
    def shown(self) -> int:
        """Views that the foundation is shown where the cache is cold."""
        return self.views * self.train

    @property
    def images(self) -> int:
        """Images that are decoded."""
        return self.train + self.held_out


def of(spec: JobSpec, dataset: Dataset) -> Load | None:
    """The load of an order on a dataset; None where the dataset isn't known through and through."""
    splits = dataset.splits
    train = _count(splits, "train")
    if splits is None or not train:
        return None
    held_out = _count(splits, "test") or _count(splits, "val")
    training = spec.options.training
    views = spec.options.views.counted(train, training.steps * training.batch_size).count
    assert views is not None  # `counted` has settled it
    return Load(train, held_out, len(dataset.classes or ()), views)


def _count(splits: dict[str, dict[str, int]] | None, split: str) -> int:
    return sum((splits or {}).get(split, {}).values())


def views_key(spec: JobSpec, dataset: Dataset, load: Load) -> str:
    """SHA-256 of what a cache entry is made from, as far as the server knows it."""
    options = spec.options
    matched = options.foundation_size == "match"
    parts = {
        "dataset": dataset.version,
        "foundation": spec.foundation,
        "size": options.foundation_size,
        "student": [spec.student, options.image_size] if matched else None,
        "taps": options.reprogram.taps,
        "input": options.input.model_dump() if takes_input_side(spec) else None,
        "views": {**options.views.model_dump(), "count": load.views},
        "seed": options.seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def takes_input_side(spec: JobSpec) -> bool:
    """Whether an input side is to be tried."""
    return bool(spec.options.input.affine or spec.options.input.border)


def other_forwards(spec: JobSpec, load: Load) -> int:
    """Images that the foundation is shown beside the stored views."""
    training = spec.options.training
    online = training.steps * training.batch_size if "kd_online" in spec.baselines else 0
    probe = load.held_out if "probe" in spec.baselines else 0
    return online + probe + (load.images if spec.options.audit else 0)


def student_side(spec: JobSpec) -> int | None:
    """The side of the student's images in pixels; None for a student of no known size."""
    entry = catalog.find(spec.student)
    return spec.options.image_size or (entry.input_size if entry else None)


def foundation_side(spec: JobSpec) -> int | None:
    """The side of the foundation's images in pixels; None where only the model itself knows."""
    entry, asked = catalog.find(spec.foundation), spec.options.foundation_size
    if isinstance(asked, int):
        return asked
    if asked == "match":
        patch, student = patch_of(spec.foundation), patch_of(spec.student)
        side = student_side(spec)
        if patch is None or student is None or side is None:
            return None
        return patch * (side // student)
    return entry.input_size if entry else None


def patch_of(name: str) -> int | None:
    """The side of a model's patches in pixels, where its name tells."""
    found = _PATCH.search(name)
    return int(found[1]) if found else None


def gmacs(name: str, side: int) -> float | None:
    """Billions of multiply-adds for one image of `side` pixels; None for an unknown model."""
    entry = catalog.find(name)
    return entry.gmacs * (side / entry.input_size) ** 2 if entry else None


def entry_bytes(spec: JobSpec, load: Load, measured: float | None) -> int | None:
    """Bytes of what the cache will hold: decoded images, and the features of every view.

    `measured` are the bytes of one view's features, from a job like this; without it their width
    is reckoned as a transformer's of as many parameters.
    """
    entry = catalog.find(spec.foundation)
    sides = (student_side(spec), foundation_side(spec))
    if entry is None or None in sides:
        return None
    taps = spec.options.reprogram.taps
    wide = math.sqrt(entry.params / (12 * BLOCKS))
    each = measured if measured is not None else taps * wide * HALF
    pixels = sum(3 * side**2 for side in sides if side is not None)
    return round(load.shown * each + load.images * pixels)


def memory_bytes(spec: JobSpec) -> int | None:
    """Bytes that the largest stage will take on its device."""
    student, foundation = catalog.find(spec.student), catalog.find(spec.foundation)
    sides = (student_side(spec), foundation_side(spec))
    if student is None or foundation is None or sides[0] is None or sides[1] is None:
        return None
    trained = student.params * FLOAT * TRAINED_COPIES
    held = foundation.params * FLOAT
    training = _values(spec.student, sides[0]) * spec.options.training.batch_size * KEPT
    looking = _values(spec.foundation, sides[1]) * CACHE_BATCH / BLOCKS
    return round(held + max(trained + training * FLOAT, looking * FLOAT))


def _values(name: str, side: int) -> float:
    """Values that a forward pass leaves of one image."""
    return VALUES_PER_ROOT * math.sqrt(gmacs(name, side) or 0.0)
