"""The five official layouts, as they unpack, read into classes, splits and image files.

Each loader takes the folder of unpacked files and a new dataset folder, makes the images reachable
below the latter (a relative link; CIFAR's bytes become PNG files) and lists them. Nothing is ever
unpickled. A file that is missing or says something else than it should is a DatasetError.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tdmr.data.index import Split
from tdmr.errors import DatasetError

IMAGES = "images"
CIFAR_SIDE = 32
CIFAR_RECORD = 2 + 3 * CIFAR_SIDE**2  # coarse class, fine class, then the red, green, blue planes


class Entry(NamedTuple):
    """An image: its file below the dataset folder, its class, its split, and what it was."""

    file: str
    label: str
    split: Split
    source: str


@dataclass(frozen=True)
class Listing:
    """The classes in their official order, and the images in theirs."""

    classes: list[str]
    entries: list[Entry]


Loader = Callable[[Path, Path], Listing]


def cifar_100(original: Path, target: Path) -> Listing:
    """train.bin and test.bin: records of a coarse byte, a fine byte and 3072 bytes of pixels."""
    folder = original / "cifar-100-binary"
    classes = lines(folder / "fine_label_names.txt")
    entries: list[Entry] = []
    parts: tuple[Split, ...] = ("train", "test")
    for split in parts:
        path = folder / f"{split}.bin"
        content = _bytes(path)
        if not content or len(content) % CIFAR_RECORD:
            raise DatasetError(
                f"{path} has {len(content)} bytes; expected a multiple of {CIFAR_RECORD}.",
                suggestion="Use the binary version: cifar-100-binary.tar.gz.",
            )
        (target / IMAGES / split).mkdir(parents=True)
        records = np.frombuffer(content, dtype=np.uint8).reshape(-1, CIFAR_RECORD)
        for number, record in enumerate(records):
            file = f"{IMAGES}/{split}/{number:05d}.png"
            planes = record[2:].reshape(3, CIFAR_SIDE, CIFAR_SIDE)
            Image.fromarray(planes.transpose(1, 2, 0).copy()).save(target / file)
            label = _class(classes, int(record[1]), path)
            entries.append(Entry(file, label, split, f"{path.name}[{number}]"))
    return Listing(classes, entries)


def flowers_102(original: Path, target: Path) -> Listing:
    """jpg/image_00001.jpg and so on; imagelabels.mat and setid.mat count from 1.

    The flowers have numbers and no names: a class is `001` to `102`.
    """
    labels = _matlab(original / "imagelabels.mat", "labels")
    classes = [f"{number:03d}" for number in range(1, max(labels, default=0) + 1)]
    link(target, original / "jpg")
    splits: tuple[tuple[Split, str], ...] = (
        ("train", "trnid"),
        ("val", "valid"),
        ("test", "tstid"),
    )
    entries = []
    for split, key in splits:
        for number in _matlab(original / "setid.mat", key):
            if not 1 <= number <= len(labels):
                raise DatasetError(
                    f"{original / 'setid.mat'} names image {number} in {key}; "
                    f"expected 1 to {len(labels)}."
                )
            label = _class(classes, labels[number - 1] - 1, original / "imagelabels.mat")
            name = f"image_{number:05d}.jpg"
            entries.append(Entry(f"{IMAGES}/{name}", label, split, f"jpg/{name}"))
    return Listing(classes, entries)


def pets(original: Path, target: Path) -> Listing:
    """annotations/trainval.txt and test.txt: `Name_12 id species breed`; the id counts from 1."""
    link(target, original / "images")
    breeds: dict[int, str] = {}
    entries = []
    parts: tuple[tuple[Split, str], ...] = (("train", "trainval.txt"), ("test", "test.txt"))
    for split, file in parts:
        path = original / "annotations" / file
        for name, number in columns(path, 4, (0, 1)):
            breed = name.rpartition("_")[0]
            if breeds.setdefault(_whole(number, path), breed) != breed:
                raise DatasetError(
                    f"{path} gives breed {number} to {name}; expected only {breeds[int(number)]}."
                )
            entries.append(Entry(f"{IMAGES}/{name}.jpg", breed, split, f"images/{name}.jpg"))
    classes = [breeds[number] for number in sorted(breeds)]
    return Listing(classes, entries)


def cub_200(original: Path, target: Path) -> Listing:
    """images.txt, image_class_labels.txt, train_test_split.txt, classes.txt: `id value` each."""
    folder = original / "CUB_200_2011"
    link(target, folder / "images")
    classes = _numbered(folder / "classes.txt")
    labels = _numbered(folder / "image_class_labels.txt")
    trained = _numbered(folder / "train_test_split.txt")
    entries = []
    for number, name in _numbered(folder / "images.txt").items():
        for path, known in (("image_class_labels.txt", labels), ("train_test_split.txt", trained)):
            if number not in known:
                raise DatasetError(f"{folder / path} has no line for image {number} ({name}).")
        label = classes.get(labels[number])
        if label is None or trained[number] not in ("0", "1"):
            raise DatasetError(
                f"Image {number} ({name}) has class {labels[number]!r} and split "
                f"{trained[number]!r}; expected a class of {folder / 'classes.txt'}, and 0 or 1."
            )
        split: Split = "train" if trained[number] == "1" else "test"
        entries.append(Entry(f"{IMAGES}/{name}", label, split, f"images/{name}"))
    return Listing(list(classes.values()), entries)


def food_101(original: Path, target: Path) -> Listing:
    """meta/train.json and test.json: class to image names without their .jpg; classes.txt."""
    folder = original / "food-101"
    link(target, folder / "images")
    classes = lines(folder / "meta" / "classes.txt")
    entries = []
    parts: tuple[Split, ...] = ("train", "test")
    for split in parts:
        path = folder / "meta" / f"{split}.json"
        for label, names in _lists(path).items():
            if label not in classes:
                raise DatasetError(f"{path} has class {label!r}, which classes.txt doesn't list.")
            entries += [
                Entry(f"{IMAGES}/{name}.jpg", label, split, f"images/{name}.jpg") for name in names
            ]
    return Listing(classes, entries)


LOADERS: dict[str, Loader] = {
    "cifar-100": cifar_100,
    "flowers-102": flowers_102,
    "pets": pets,
    "cub-200": cub_200,
    "food-101": food_101,
}


def link(target: Path, images: Path) -> None:
    """Make `target`/images stand for the folder `images`; the link survives a move of both."""
    if not images.is_dir():
        raise DatasetError(f"There is no folder {images}; expected the images in it.")
    (target / IMAGES).symlink_to(os.path.relpath(images, target), target_is_directory=True)


def lines(path: Path) -> list[str]:
    """The lines of a text file that aren't empty."""
    text = _bytes(path).decode("utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def columns(path: Path, count: int, wanted: Iterable[int]) -> list[list[str]]:
    """The `wanted` columns of a file of `count` columns; lines that begin with # are comments."""
    rows = [line.split() for line in lines(path) if not line.startswith("#")]
    for number, row in enumerate(rows, 1):
        if len(row) != count:
            raise DatasetError(
                f"{path} has {len(row)} columns in row {number} ({' '.join(row)[:60]!r}); "
                f"expected {count}."
            )
    return [[row[column] for column in wanted] for row in rows]


def _numbered(path: Path) -> dict[str, str]:
    return {row[0]: row[1] for row in columns(path, 2, (0, 1))}


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise DatasetError(
            f"There is no file {path}; the official archive has one.",
            suggestion="Remove the folder of unpacked files, and run it again.",
        )
    return path.read_bytes()


def _class(classes: list[str], number: int, path: Path) -> str:
    if not 0 <= number < len(classes):
        raise DatasetError(f"{path} holds class number {number}; expected 0 to {len(classes) - 1}.")
    return classes[number]


def _whole(text: str, path: Path) -> int:
    if not text.isdecimal():
        raise DatasetError(f"{path} holds {text!r} where a number was expected.")
    return int(text)


def _lists(path: Path) -> dict[str, list[str]]:
    try:
        found = json.loads(_bytes(path))
    except ValueError as error:
        raise DatasetError(f"{path} isn't JSON: {error}.") from error
    if not isinstance(found, dict) or not all(isinstance(x, list) for x in found.values()):
        raise DatasetError(f"{path} isn't an object of lists of image names.")
    return found


def _matlab(path: Path, key: str) -> list[int]:
    """The whole numbers of one variable of a MATLAB 5 file."""
    _bytes(path)
    try:
        # Only this dataset needs scipy, which takes longer to load than everything else here.
        io: Any = import_module("scipy.io")
    except ImportError as error:
        raise DatasetError(
            f"{path.name} can't be read without SciPy.", suggestion="Run: pip install scipy"
        ) from error
    try:
        content = io.loadmat(path, variable_names=[key])
    except (ValueError, TypeError, NotImplementedError, OSError) as error:
        raise DatasetError(f"{path} isn't a MATLAB 5 file: {error}.") from error
    if key not in content:
        raise DatasetError(f"{path} holds no variable {key!r}.")
    return [int(value) for value in np.asarray(content[key]).ravel()]
