"""A setting picked by folds inside the draw's own training images, as a user without others would.

Each fold is held out once, and the rest is trained on, in every setting of grid.SETTINGS; what has
the best mean over folds is trained on all training images. Nothing of the test images is at hand
while it is picked.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.transfer import grid
from benchmarks.transfer.lab import Lab

Row = dict[str, Any]

FOLDS = 2  # with 5 images per class one fold has 2 or 3


def write(data: Path, folder: Path, fold: int) -> None:
    """Copy the training images of `data` into `folder`: those of `fold` as test, others as train.

    Raises ValueError where a class has fewer images than there are folds.
    """
    for class_folder in sorted((data / "train").iterdir()):
        images = sorted(class_folder.iterdir())
        if len(images) < FOLDS:
            raise ValueError(f"{class_folder.name}: {len(images)} image(s) for {FOLDS} folds")
        for place, image in enumerate(images):
            half = "test" if place % FOLDS == fold else "train"
            to = folder / half / class_folder.name / image.name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, to)


def pick(accuracies: dict[str, list[float]]) -> str:
    """The setting with the best mean over folds; of equals the one that comes first."""
    return max(accuracies, key=lambda setting: mean(accuracies[setting]))


def measure(lab: Lab, method: str) -> Row:
    """Held-out accuracy of `method` in the setting that its folds picked, and what they said."""
    found: dict[str, list[float]] = defaultdict(list)
    for fold in range(FOLDS):
        folder = lab.data.parent / f"fold_{fold}"
        if not folder.exists():
            write(lab.data, folder, fold)
        inside = Lab(lab.draw, folder, lab.cache)
        for setting, changes in grid.SETTINGS.items():
            found[setting].append(round(inside.train(method, changes)["accuracy"], 5))
    picked = pick(found)
    return {**lab.train(method, grid.SETTINGS[picked]), "picked": picked, "folds": dict(found)}
