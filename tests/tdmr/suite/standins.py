"""Tiny datasets in the official layouts of the public ones: same folders and file formats."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from tdmr.suite import sources
from tdmr.suite.sources import Archive, Source
from tests.shapes import CLASSES, draw

TRAIN, TEST = 3, 2  # images per class


def cifar_100(root: Path) -> None:
    """Records of coarse, fine, red plane, green plane, blue plane."""
    folder = root / "cifar-100-binary"
    folder.mkdir(parents=True)
    (folder / "fine_label_names.txt").write_text("\n".join(CLASSES) + "\n\n")
    (folder / "coarse_label_names.txt").write_text("things\n")
    for split, count in (("train", TRAIN), ("test", TEST)):
        with (folder / f"{split}.bin").open("wb") as file:
            for number in range(count):
                for fine in range(len(CLASSES)):
                    file.write(bytes([0, fine]) + cifar_pixels(split, fine, number).tobytes())


def cifar_pixels(split: str, fine: int, number: int) -> np.ndarray:
    """The planes of one record: (3, 32, 32), uint8."""
    image = draw(CLASSES[fine], number + (100 if split == "test" else 0), 32)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def flowers_102(root: Path) -> None:
    """15 images, their classes and splits in MATLAB 5 files; every third image is of one class."""
    (root / "jpg").mkdir(parents=True)
    labels = [1 + place % 3 for place in range(18)]
    for place, label in enumerate(labels):
        save(CLASSES[label - 1], place, root / "jpg" / f"image_{place + 1:05d}.jpg")
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    splits = {"trnid": range(1, 10), "valid": range(10, 13), "tstid": range(13, 19)}
    savemat(root / "setid.mat", {k: np.array([list(v)], np.uint16) for k, v in splits.items()})


def pets(root: Path) -> None:
    """Breeds with underscores in their names; one image is a PNG that is called .jpg."""
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    for split, first, count in (("trainval", 0, TRAIN), ("test", 50, TEST)):
        rows = []
        for number in range(first, first + count):
            for place, label in enumerate(CLASSES):
                name = f"old_{label}_{number}"
                save(label, number, root / "images" / f"{name}.jpg")
                rows.append(f"{name} {place + 1} 1 {place + 1}\n")
        (root / "annotations" / f"{split}.txt").write_text(
            "#Image id species breed\n" + "".join(rows)
        )
    draw("circle", 0).save(root / "images" / "old_circle_0.jpg", format="png")


def cub_200(root: Path) -> None:
    """Ids count from 1 and tie four text files together."""
    folder = root / "CUB_200_2011"
    names = [f"{place + 1:03d}.{label}" for place, label in enumerate(CLASSES)]
    images, labels, splits = [], [], []
    for place, label in enumerate(CLASSES):
        (folder / "images" / names[place]).mkdir(parents=True)
        for number in range(TRAIN + TEST):
            file = f"{names[place]}/{label}_{number}.jpg"
            save(label, number, folder / "images" / file)
            key = len(images) + 1
            images.append(f"{key} {file}\n")
            labels.append(f"{key} {place + 1}\n")
            splits.append(f"{key} {int(number < TRAIN)}\n")
    (folder / "images.txt").write_text("".join(images))
    (folder / "image_class_labels.txt").write_text("".join(labels))
    (folder / "train_test_split.txt").write_text("".join(splits))
    (folder / "classes.txt").write_text("".join(f"{p + 1} {n}\n" for p, n in enumerate(names)))


def food_101(root: Path) -> None:
    """Class folders, and JSON lists of image names without .jpg."""
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "classes.txt").write_text("\n".join(CLASSES))
    for split, first, count in (("train", 0, TRAIN), ("test", 50, TEST)):
        numbers = range(first, first + count)
        for label in CLASSES:
            (folder / "images" / label).mkdir(parents=True, exist_ok=True)
            for number in numbers:
                save(label, number, folder / "images" / label / f"{number}.jpg")
        names = {label: [f"{label}/{number}" for number in numbers] for label in CLASSES}
        (folder / "meta" / f"{split}.json").write_text(json.dumps(names))


def save(label: str, seed: int, path: Path) -> None:
    """A drawn shape as JPEG."""
    draw(label, seed).save(path, format="jpeg", quality=95)


WRITERS: dict[str, Callable[[Path], None]] = {
    "cifar-100": cifar_100,
    "flowers-102": flowers_102,
    "pets": pets,
    "cub-200": cub_200,
    "food-101": food_101,
}


def source(name: str) -> Source:
    """The source of the stand-in for `name`: its counts are the stand-in's."""
    val = 3 if name == "flowers-102" else 0
    counts = {"classes": len(CLASSES), "train": 3 * TRAIN, "val": val, "test": 3 * TEST}
    return replace(sources.SOURCES[name], **counts)


def pack(root: Path, archive: Archive) -> bytes:
    """The content of `archive` as the publishers pack it: all of `root` that belongs into it."""
    if not archive.is_tar:
        return (root / archive.name).read_bytes()
    only = archive.name.removesuffix(".tar.gz")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in sorted(root.iterdir()):
            if path.is_dir() and only in (path.name, archive.name, "cifar-100-binary", "food-101"):
                tar.add(path, path.name)
    return buffer.getvalue()


def published(name: str, root: Path, address: str) -> tuple[Source, dict[str, bytes]]:
    """The stand-in below `root` as if it were published at `address`, and the files to serve."""
    files, archives = {}, []
    for archive in sources.SOURCES[name].archives:
        content = pack(root, archive)
        files[f"/{name}/{archive.name}"] = content
        digest = hashlib.md5(content).hexdigest()
        url = f"{address}/{name}/{archive.name}"
        archives.append(Archive(url, len(content), digest, "this test"))
    return replace(source(name), archives=tuple(archives)), files


def pixels(path: Path) -> np.ndarray:
    """An image file as RGB: (height, width, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
