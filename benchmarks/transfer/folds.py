"""A setting picked by folds inside the draw's own training images, as a user without others would.

Each fold is held out once, and the rest is trained on, in every setting of grid.SETTINGS; what has
the best mean over folds is trained on all training images. Nothing of the test images is at hand
while it is picked.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.transfer import grid
from benchmarks.transfer.lab import Lab
from tdmr.suite.statistics import paired

Row = dict[str, Any]
Place = tuple[str, int, int]  # student, shots, seed

FOUNDATION = grid.FOUNDATIONS["transformer"]
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


def summary(rows: Iterable[Row]) -> Row:
    """TDMR minus each other, and each minus itself in the common setting, paired by draw.

    Only draws count on which every method has picked. The student alone has no foundation, the
    others have the transformer.
    """
    picked: dict[str, dict[Place, Row]] = defaultdict(dict)
    common: dict[str, dict[Place, float]] = defaultdict(dict)
    for row in rows:
        if row["target"] != "digits" or row["foundation"] not in (None, FOUNDATION):
            continue
        place = row["student"], row["shots"], row["seed"]
        if row["kind"] == grid.FOLDED:
            picked[row["method"]][place] = row
        elif row["kind"] == "result":
            common[row["method"]][place] = row["accuracy"]
    methods = sorted(picked)
    places = sorted(set.intersection(*map(set, picked.values()))) if picked else []
    accuracy = {m: {p: picked[m][p]["accuracy"] for p in places} for m in methods}
    ours = accuracy.get("tdmr", {})
    return {
        "folds": FOLDS,
        "draws": [list(place) for place in places],
        "picks": {m: _counts(picked[m][p]["picked"] for p in places) for m in methods},
        "tdmr_minus": _present({m: _minus(ours, accuracy[m]) for m in methods if m != "tdmr"}),
        "minus_common": _present({m: _minus(accuracy[m], common[m]) for m in methods}),
    }


def _minus(ours: dict[Place, float], theirs: dict[Place, float]) -> Row | None:
    both = sorted(ours.keys() & theirs.keys())
    return asdict(paired([ours[p] for p in both], [theirs[p] for p in both])) if both else None


def _present(found: dict[str, Row | None]) -> dict[str, Row]:
    return {method: row for method, row in sorted(found.items()) if row}


def _counts(settings: Iterable[str]) -> dict[str, int]:
    settings = list(settings)
    return {setting: settings.count(setting) for setting in grid.SETTINGS if setting in settings}
