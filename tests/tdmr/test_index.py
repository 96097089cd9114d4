"""What a dataset folder is read as, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdmr.data.index import IndexedImage, assign_splits, check_trainable, content_hash, load_index
from tdmr.errors import DatasetError
from tests.shapes import draw, draw_dataset


def image(number: int, label: str = "a", split: str | None = None) -> IndexedImage:
    return IndexedImage(
        file=f"{number}.png",
        label=label,
        split=split,
        source=f"{number}.png",
        sha256=f"{number:064}",
        width=1,
        height=1,
    )


def test_folders_with_splits(shapes: Path) -> None:
    index = load_index(shapes)
    assert index.classes == ["circle", "cross", "square"]
    assert (len(index.split("train")), len(index.held_out)) == (18, 24)


def test_the_hash_is_of_content_not_of_names_or_order() -> None:
    images = [image(1, split="train"), image(2, split="test")]
    renamed = [i.model_copy(update={"file": "x", "source": "y"}) for i in reversed(images)]
    assert content_hash(images) == content_hash(renamed)
    assert content_hash(images) != content_hash([image(1, split="train"), image(2, split="train")])


def test_a_split_is_made_where_none_was_given() -> None:
    images = [image(n, "a") for n in range(10)] + [image(n, "b") for n in range(10, 13)]
    split = assign_splits(images)
    tested = [i.label for i in split if i.split == "test"]
    assert (tested.count("a"), tested.count("b")) == (2, 1)
    assert split == assign_splits(images)
    assert split != assign_splits(images, seed=1)


def test_a_class_of_one_is_for_training() -> None:
    assert [i.split for i in assign_splits([image(1)])] == ["train"]


def test_val_is_held_out_where_there_is_no_test(tmp_path: Path) -> None:
    draw_dataset(tmp_path, {"train": 2, "val": 3})
    assert len(load_index(tmp_path).held_out) == 9


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "0 class"),
        ({"a/1.png"}, "1 class"),
        ({"train/a/1.png", "train/b/1.png"}, "No image is held out"),
        ({"train/a/1.png", "test/a/2.png", "test/b/1.png"}, "'b' has no image to train on"),
    ],
)
def test_what_cannot_be_trained_on(tmp_path: Path, files: set[str], message: str) -> None:
    for number, name in enumerate(sorted(files)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw("circle", number).save(path)
    with pytest.raises(DatasetError, match=message):
        load_index(tmp_path)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no folder"):
        load_index(tmp_path / "absent")


def test_an_unreadable_image_is_named(shapes: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path, {"train": 2, "test": 1})
    (tmp_path / "train" / "cross" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(DatasetError, match=r"broken\.png"):
        load_index(tmp_path)


def test_an_index_that_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"version": 3}')
    with pytest.raises(DatasetError, match=r"index\.json isn't a dataset index"):
        load_index(tmp_path)


def test_a_published_index_is_used_as_it_stands(shapes: Path) -> None:
    index = load_index(shapes)
    check_trainable(index)
    assert load_index(shapes).version == index.version
