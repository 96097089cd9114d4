"""The five official layouts, on stand-ins of the same files; and what is wrong with broken ones."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tdmr.data.index import load_index
from tdmr.data.pixels import decode
from tdmr.errors import DatasetError
from tdmr.suite.layouts import LOADERS
from tdmr.suite.prepare import build
from tests.tdmr.suite import standins

NAMES = {
    "cifar-100": ["circle", "cross", "square"],
    "flowers-102": ["001", "002", "003"],
    "pets": ["old_circle", "old_cross", "old_square"],
    "cub-200": ["001.circle", "002.cross", "003.square"],
    "food-101": ["circle", "cross", "square"],
}


def built(name: str, folder: Path) -> Path:
    """The dataset folder made from the stand-in for `name`, written beside it."""
    original, dataset = folder / "original", folder / "dataset"
    if not original.exists():
        standins.WRITERS[name](original)
    dataset.mkdir()
    build(standins.source(name), original, dataset)
    return dataset


def test_every_source_has_a_loader_and_a_stand_in() -> None:
    assert set(LOADERS) == set(standins.WRITERS) == set(standins.sources.SOURCES)


@pytest.mark.parametrize("name", NAMES)
def test_classes_splits_and_files(name: str, tmp_path: Path) -> None:
    dataset = built(name, tmp_path)
    index = load_index(dataset)
    assert index.classes == NAMES[name]
    found = Counter((image.split, image.label) for image in index.images)
    val = {("val", label): 1 for label in NAMES[name]} if name == "flowers-102" else {}
    assert found == {
        **{("train", label): standins.TRAIN for label in NAMES[name]},
        **{("test", label): standins.TEST for label in NAMES[name]},
        **val,
    }
    side = 32 if name == "cifar-100" else 40
    assert {(image.width, image.height) for image in index.images} == {(side, side)}
    assert all((dataset / image.file).is_file() for image in index.images)
    assert len({image.file for image in index.images}) == len(index.images)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cifar-100"])
def test_images_are_the_originals_and_survive_a_move(name: str, tmp_path: Path) -> None:
    dataset = built(name, tmp_path / "here")
    original = (tmp_path / "here" / "original").resolve()
    image = load_index(dataset).images[0]
    assert (dataset / image.file).resolve().is_relative_to(original)
    (tmp_path / "here").rename(tmp_path / "there")
    assert (tmp_path / "there" / "dataset" / image.file).is_file()


def test_cifar_pixels_are_those_of_the_records(tmp_path: Path) -> None:
    dataset = built("cifar-100", tmp_path)
    index = load_index(dataset)
    for split in ("train", "test"):
        for place, image in enumerate(index.split(split)):  # type: ignore[arg-type]  # what is given is meant to vary
            expected = standins.cifar_pixels(split, place % 3, place // 3)
            assert np.array_equal(decode(dataset / image.file, 32), expected)
            assert image.label == NAMES["cifar-100"][place % 3]
            assert image.source == f"{split}.bin[{place}]"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cifar-100"])
def test_a_label_belongs_to_its_image(name: str, tmp_path: Path) -> None:
    dataset = built(name, tmp_path)
    index = load_index(dataset)
    drawn: dict[bytes, str] = {}
    for place, shape in enumerate(standins.CLASSES):
        for number in range(60):
            standins.save(shape, number, tmp_path / "one.jpg")
            drawn[(tmp_path / "one.jpg").read_bytes()] = index.classes[place]
    standins.draw("circle", 0).save(tmp_path / "one.png")
    drawn[(tmp_path / "one.png").read_bytes()] = index.classes[0]
    assert all(drawn[(dataset / image.file).read_bytes()] == image.label for image in index.images)


def rewrite(path: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    """A damage that changes the text of one file."""

    def damage(root: Path) -> None:
        (root / path).write_text(change((root / path).read_text()))

    return damage


def remove(path: str) -> Callable[[Path], None]:
    """A damage that removes one file."""
    return lambda root: (root / path).unlink()


def short_cifar(root: Path) -> None:
    path = root / "cifar-100-binary" / "train.bin"
    path.write_bytes(path.read_bytes()[:-1])


def wrong_cifar_class(root: Path) -> None:
    path = root / "cifar-100-binary" / "test.bin"
    path.write_bytes(b"\0\7" + path.read_bytes()[2:])


def fewer_cifar_records(root: Path) -> None:
    path = root / "cifar-100-binary" / "train.bin"
    path.write_bytes(path.read_bytes()[: -3 * 3074])


def other_variable(root: Path) -> None:
    savemat(root / "setid.mat", {"trnid": np.array([[1]])})


def image_beyond(root: Path) -> None:
    savemat(root / "setid.mat", {"trnid": np.array([[99]])})


def no_matlab(root: Path) -> None:
    (root / "imagelabels.mat").write_bytes(b"x" * 200)


def no_image(root: Path) -> None:
    (root / "food-101/images/circle/0.jpg").write_bytes(b"GIF")


CUB, FOOD, PETS = "CUB_200_2011", "food-101/meta", "annotations"
DAMAGES: list[tuple[str, Callable[[Path], None], str]] = [
    ("cifar-100", remove("cifar-100-binary/test.bin"), r"no file .*test\.bin"),
    ("cifar-100", short_cifar, r"train\.bin has 27665 bytes; expected a multiple of 3074"),
    ("cifar-100", wrong_cifar_class, r"test\.bin holds class number 7; expected 0 to 2"),
    ("cifar-100", fewer_cifar_records, r"has 6 training images; CIFAR-100 .* has 9"),
    ("flowers-102", remove("setid.mat"), r"no file .*setid\.mat"),
    ("flowers-102", other_variable, r"setid\.mat holds no variable 'valid'"),
    ("flowers-102", image_beyond, r"setid\.mat names image 99 in trnid; expected 1 to 18"),
    ("flowers-102", no_matlab, r"imagelabels\.mat isn't a MATLAB 5 file"),
    ("flowers-102", remove("jpg/image_00002.jpg"), r"image_00002\.jpg is listed, but there is no"),
    ("pets", remove("annotations/test.txt"), r"no file .*test\.txt"),
    ("pets", rewrite(f"{PETS}/test.txt", lambda t: t + "old_x_1 1\n"), r"has 2 columns in row 7"),
    (
        "pets",
        rewrite(f"{PETS}/test.txt", lambda t: t.replace("circle_50 1", "circle_50 2")),
        r"test\.txt gives breed 2 to old_circle_50; expected only old_cross",
    ),
    ("pets", rewrite(f"{PETS}/test.txt", lambda t: t.replace("50 1 ", "50 one ")), r"'one' where"),
    ("cub-200", remove(f"{CUB}/classes.txt"), r"no file .*classes\.txt"),
    (
        "cub-200",
        rewrite(f"{CUB}/train_test_split.txt", lambda t: t.replace("\n15 0\n", "\n")),
        r"train_test_split\.txt has no line for image 15",
    ),
    (
        "cub-200",
        rewrite(f"{CUB}/image_class_labels.txt", lambda t: t.replace("15 3", "15 4")),
        r"Image 15 .* has class '4'",
    ),
    (
        "cub-200",
        rewrite(f"{CUB}/train_test_split.txt", lambda t: t.replace("15 0", "15 1")),
        r"has 10 training images; CUB-200-2011.* has 9",
    ),
    ("food-101", rewrite(f"{FOOD}/train.json", lambda t: t[:-1]), r"train\.json isn't JSON"),
    ("food-101", rewrite(f"{FOOD}/test.json", lambda _: "[]"), r"isn't an object of lists"),
    (
        "food-101",
        rewrite(f"{FOOD}/classes.txt", lambda t: t.replace("cross", "star")),
        r"train\.json has class 'cross', which classes\.txt doesn't list",
    ),
    (
        "food-101",
        rewrite(f"{FOOD}/classes.txt", lambda t: t + "\nstar"),
        r"has 4 classes; Food-101 .* has 3",
    ),
    ("food-101", no_image, r"circle/0\.jpg isn't an image that can be read"),
]


@pytest.mark.parametrize(("name", "damage", "words"), DAMAGES)
def test_a_broken_layout_says_which_file_and_what_was_expected(
    name: str, damage: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    standins.WRITERS[name](tmp_path / "original")
    damage(tmp_path / "original")
    with pytest.raises(DatasetError, match=words):
        built(name, tmp_path)


def test_flowers_without_scipy_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DatasetError, match="pip install scipy"):
        built("flowers-102", tmp_path)


def test_names_that_climb_out_are_no_listed_images(tmp_path: Path) -> None:
    standins.food_101(tmp_path / "original")
    path = tmp_path / "original" / "food-101" / "meta" / "train.json"
    content = json.loads(path.read_text())
    content["circle"][0] = "../../../../outside"
    path.write_text(json.dumps(content))
    standins.save("circle", 0, tmp_path / "outside.jpg")
    with pytest.raises(DatasetError, match="outside the images"):
        built("food-101", tmp_path)
