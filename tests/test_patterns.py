"""The benchmark's drawn patterns: deterministic, balanced, with nothing shared by the halves."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import patterns


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def test_folders_classes_and_counts(tmp_path: Path) -> None:
    patterns.write(tmp_path, shots=3, seed=0, held_out=40)
    for half, each in (("train", 3), ("test", 4)):
        files = sorted((tmp_path / half).rglob("*.png"))
        assert Counter(file.parent.name for file in files) == dict.fromkeys(patterns.CLASSES, each)
        for file in files:
            with Image.open(file) as image:
                assert (image.size, image.mode) == ((32, 32), "RGB")


def test_the_seed_and_nothing_else_decides(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        patterns.write(tmp_path / name, shots=2, seed=seed, held_out=20)
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    other = contents(tmp_path / "c")
    assert first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())


def test_held_out_images_do_not_depend_on_the_shots(tmp_path: Path) -> None:
    for shots in (1, 4):
        patterns.write(tmp_path / str(shots), shots=shots, seed=0, held_out=20)
    assert contents(tmp_path / "1" / "test") == contents(tmp_path / "4" / "test")


def test_no_image_occurs_twice() -> None:
    drawn = [patterns.draw(600, 0, half) for half in patterns.HALVES]
    images = np.concatenate([images for images, _ in drawn])
    assert len({image.tobytes() for image in images}) == 1200
    for _, labels in drawn:
        assert np.bincount(labels).tolist() == [60] * 10


def test_every_class_shows_two_colours_and_varies() -> None:
    images, labels = patterns.draw(100, 1)
    assert (images.reshape(100, -1, 3).std(1).max(1) > 15).all()
    for label in range(len(patterns.CLASSES)):
        of_class = images[labels == label].astype(float)
        assert np.abs(of_class[0] - of_class[1]).mean() > 10


def test_a_folder_that_holds_images_is_refused(tmp_path: Path) -> None:
    patterns.write(tmp_path, shots=1, seed=0, held_out=10)
    with pytest.raises(FileExistsError):
        patterns.write(tmp_path, shots=1, seed=1, held_out=10)
