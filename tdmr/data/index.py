"""What a dataset holds: classes, images, splits and a content hash. Loads no torch.

A dataset is a folder, in one of two forms:

    index.json + images/        as a server publishes it
    [train/|val/|test/]CLASS/*  as a person keeps it
"""

from __future__ import annotations

import hashlib
import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tdmr.errors import DatasetError, DatasetWarning

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
TEST_SHARE = 0.2


class IndexedImage(BaseModel):
    """One image: its file below the dataset's folder, its class, and where it came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    label: str
    split: Split | None = None
    source: str
    sha256: str
    width: int
    height: int


class DatasetIndex(BaseModel):
    """An immutable dataset version; `version` is the hash of its content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    classes: list[str]
    images: list[IndexedImage]

    def split(self, name: Split) -> list[IndexedImage]:
        """The images of one split, in order."""
        return [image for image in self.images if image.split == name]

    @property
    def held_out(self) -> list[IndexedImage]:
        """The images that accuracy is reported on: `test`, or `val` where there is no test."""
        return self.split("test") or self.split("val")

    @property
    def untested(self) -> list[str]:
        """The classes without a held-out image: nothing is measured of them."""
        tested = {image.label for image in self.held_out}
        return [label for label in self.classes if label not in tested]


def content_hash(images: Sequence[IndexedImage]) -> str:
    """SHA-256 over every image's split, class and bytes; the order and the names don't matter."""
    lines = sorted(f"{image.split}\0{image.label}\0{image.sha256}\n" for image in images)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def assign_splits(images: Sequence[IndexedImage], seed: int = 0) -> list[IndexedImage]:
    """Give every image a split: as uploaded, or else a seeded, stratified fifth for `test`.

    A class always keeps at least one image for training; a class of one has none to test.
    """
    if any(image.split for image in images):
        return [image.model_copy(update={"split": image.split or "train"}) for image in images]
    by_class: dict[str, list[IndexedImage]] = defaultdict(list)
    for image in images:
        by_class[image.label].append(image)
    tested: set[str] = set()
    for label, members in sorted(by_class.items()):
        members.sort(key=lambda image: image.sha256)
        random.Random(f"{seed}:{label}").shuffle(members)
        count = min(max(1, round(TEST_SHARE * len(members))), len(members) - 1)
        tested.update(image.file for image in members[:count])
    return [
        image.model_copy(update={"split": "test" if image.file in tested else "train"})
        for image in images
    ]


def load_index(folder: Path) -> DatasetIndex:
    """The index of a dataset folder, read from index.json or made by looking at class folders.

    Raises DatasetError when the folder holds no dataset that can be trained on. Warns with
    DatasetWarning of classes that no held-out image is of.
    """
    if not folder.is_dir():
        raise DatasetError(
            f"There is no folder {str(folder)!r}.", suggestion="Give a folder of class folders."
        )
    stored = folder / "index.json"
    index = _read_index(stored) if stored.exists() else scan(folder)
    check_trainable(index)
    if index.untested:
        warnings.warn(_untested_warning(index), DatasetWarning, stacklevel=2)
    return index


def _untested_warning(index: DatasetIndex) -> str:
    named = _some(index.untested)
    return (
        f"No image of {named} is held out, so the accuracy says nothing of it: it is measured on "
        f"{len(index.classes) - len(index.untested)} of {len(index.classes)} classes. Add images "
        "to the test split."
    )


def _some(labels: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(repr(label) for label in labels[:most]) + more


def _read_index(path: Path) -> DatasetIndex:
    try:
        return DatasetIndex.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DatasetError(f"{path.name} isn't a dataset index: {error.errors()[0]}.") from error


def scan(folder: Path) -> DatasetIndex:
    """Index a folder of class folders, with or without train/, val/ and test/ above them."""
    present = [name for name in SPLITS if (folder / name).is_dir()]
    roots: list[tuple[Split | None, Path]] = [(name, folder / name) for name in present]
    images = [
        image
        for split, root in roots or [(None, folder)]
        for class_folder in sorted(p for p in root.iterdir() if p.is_dir())
        for image in _scan_class(folder, split, class_folder)
    ]
    images = assign_splits(images)
    classes = sorted({image.label for image in images})
    return DatasetIndex(version=content_hash(images), classes=classes, images=images)


def _scan_class(folder: Path, split: Split | None, class_folder: Path) -> list[IndexedImage]:
    found = []
    for path in sorted(p for p in class_folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        width, height = _size(path)
        relative = path.relative_to(folder).as_posix()
        found.append(
            IndexedImage(
                file=relative,
                label=class_folder.name,
                split=split,
                source=relative,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                width=width,
                height=height,
            )
        )
    return found


def _size(path: Path) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, OSError) as error:
        raise DatasetError(
            f"{path.name} isn't an image that can be read: {error}.",
            suggestion="Remove the file, or save it again as PNG, JPEG or WebP.",
        ) from error


def check_trainable(index: DatasetIndex) -> None:
    """Raise DatasetError unless there are two classes, each with training images, and a test."""
    _check_labels(index)
    if len(index.classes) < 2:
        raise DatasetError(
            f"The dataset has {len(index.classes)} class(es); a classifier needs at least 2.",
            suggestion="Put the images of each class into a folder of its own.",
        )
    trained = Counter(image.label for image in index.split("train"))
    if missing := [label for label in index.classes if not trained[label]]:
        raise DatasetError(
            f"Class {_some(missing)} has no image to train on.",
            suggestion=f"Add images of {_some(missing)} to the training split, or remove them.",
        )
    if not index.held_out:
        raise DatasetError(
            "No image is held out, so that accuracy can't be measured.",
            suggestion="Add a test/ folder, or give each class at least 2 images.",
        )


def _check_labels(index: DatasetIndex) -> None:
    if len(set(index.classes)) < len(index.classes):
        raise DatasetError(
            "The index names a class twice.", suggestion="Name each class once in `classes`."
        )
    if unknown := sorted({image.label for image in index.images} - set(index.classes)):
        raise DatasetError(
            f"Images are of {_some(unknown)}, which `classes` doesn't name.",
            suggestion="Add the names to `classes` in index.json, or remove the images.",
        )
