"""The audit finds what is planted, accuses no clean dataset, and looks at nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tdmr
from tdmr import audit
from tdmr.audit import Pair, near_duplicates
from tdmr.config import DistillOptions, ExportOptions, JobSpec, TrainingOptions, ViewOptions
from tdmr.data.index import DatasetIndex
from tdmr.jobdir import Reporter
from tdmr.store import ArrayStore
from tdmr.task import Task, prepare

CLASSES, EACH, SIDE = 3, 20, 32


def picture(generator: np.random.Generator, label: int) -> Image.Image:
    """Soft random shapes in the colour of a class: no two alike."""
    coarse = generator.integers(40, 216, (6, 6)).astype(np.uint8)
    grey = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    colour = np.full((SIDE, SIDE, 3), 60, np.uint8)
    colour[..., label] = grey
    return Image.fromarray(colour)


def save(image: Image.Image, folder: Path, name: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return name


def write(folder: Path) -> list[Image.Image]:
    """A clean dataset; its training images of the first class."""
    generator = np.random.default_rng(0)
    first = []
    for label in range(CLASSES):
        for number in range(EACH):
            image = picture(generator, label)
            split = "train" if number < EACH // 2 else "test"
            save(image, folder, f"{split}/{label}/{number}.png")
            if (split, label) == ("train", 0):
                first.append(image)
    return first


def prepared(folder: Path, cache: Path) -> tuple[Task, DatasetIndex]:
    options = DistillOptions(image_size=SIDE)
    spec = JobSpec(foundation="letters_cnn", student="test_resnet", options=options)
    reporter = Reporter(None, ["prepare"])
    return prepare(spec, folder, ArrayStore(cache), torch.device("cpu"), reporter)


def files(found: list[dict[str, object]]) -> set[frozenset[str]]:
    return {frozenset(image["file"] for image in each["images"]) for each in found}  # type: ignore[attr-defined]  # not in the stubs


def test_a_clean_dataset_isnt_accused(tmp_path: Path) -> None:
    write(tmp_path / "data")
    found = audit.look(*prepared(tmp_path / "data", tmp_path / "c"), ArrayStore(tmp_path / "c"))
    assert found is not None
    assert found["counts"] == {"duplicates": 0, "leaks": 0, "mislabels": 0}


def test_what_is_planted_is_found_and_told_apart(tmp_path: Path) -> None:
    data = tmp_path / "data"
    images = write(data)
    save(images[1].resize((26, 26)), data, "train/0/smaller.png")
    save(images[2].crop((2, 1, 31, 32)), data, "test/0/cropped.png")
    (data / "train/1/5.png").rename(data / "train/2/wrong.png")
    task, index = prepared(data, tmp_path / "c")
    found = audit.look(task, index, ArrayStore(tmp_path / "c"))
    assert found is not None
    assert files(found["duplicates"]) == {frozenset({"train/0/1.png", "train/0/smaller.png"})}
    assert files(found["leaks"]) == {frozenset({"train/0/2.png", "test/0/cropped.png"})}
    (doubt,) = found["mislabels"]
    assert (doubt["image"]["file"], doubt["label"], doubt["suggested"]) == (
        "train/2/wrong.png", "2", "1",
    )  # fmt: skip
    assert index.images[doubt["image"]["number"]].source == "train/2/wrong.png"


def test_the_foundation_sees_every_image_once_and_never_again(tmp_path: Path) -> None:
    write(tmp_path / "data")
    store = ArrayStore(tmp_path / "c")
    task, index = prepared(tmp_path / "data", tmp_path / "c")
    told: list[tuple[int, int]] = []
    first = audit.look(task, index, store, lambda *counts: told.append(counts))
    assert told[-1] == (CLASSES * EACH, CLASSES * EACH)
    assert told == sorted(told)
    assert task.foundation.forwards == CLASSES * EACH
    again, _ = prepared(tmp_path / "data", tmp_path / "c")
    assert audit.look(again, index, store) == first
    assert again.foundation.forwards == 0


def test_pairs_by_hand() -> None:
    """Of five images the first and the last show the same, the last darker."""
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (5, 3, 8, 8)).astype(np.uint8)
    images[4] = images[0] // 2
    features = torch.from_numpy(generator.normal(size=(5, 4))).float()
    features[4] = features[0] + 0.01
    (pair,) = near_duplicates(features, [images[:2], images[2:]])
    assert (pair.first, pair.second) == (0, 4)
    assert pair.similarity == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images_to_compare(count: int) -> None:
    images = np.zeros((count, 3, 8, 8), np.uint8)
    assert near_duplicates(torch.zeros(count, 4), [images]) == []


def test_the_list_is_cut_and_the_count_is_not() -> None:
    found = audit.Audit([Pair(0, 1, 0.9)] * 7, [], [])
    told = audit.described(found, [{"number": 0, "file": "a"}, {"number": 1, "file": "b"}], [], 5)
    assert (len(told["duplicates"]), told["counts"]["duplicates"]) == (5, 7)


def test_a_job_leaves_its_audit_in_the_bundle(tmp_path: Path) -> None:
    data = tmp_path / "data"
    images = write(data)
    save(images[2].crop((2, 1, 31, 32)), data, "test/0/cropped.png")
    options = DistillOptions(
        image_size=SIDE,
        views=ViewOptions(count=2),
        training=TrainingOptions(steps=2, batch_size=4),
        exports=ExportOptions(formats=()),
    )
    result = tdmr.distill(
        data, foundation="letters_cnn", student="test_resnet", out=tmp_path / "out",
        options=options, baselines=(), cache=tmp_path / "c",
    )  # fmt: skip
    assert result.metrics["audit"] == {"duplicates": 0, "leaks": 1, "mislabels": 0}
    audited = json.loads((tmp_path / "out" / "audit.json").read_bytes())
    assert files(audited["leaks"]) == {frozenset({"train/0/2.png", "test/0/cropped.png"})}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert "audit.json" in [file["name"] for file in manifest["files"]]


def test_more_images_than_can_be_compared_arent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data")
    task, index = prepared(tmp_path / "data", tmp_path / "c")
    monkeypatch.setattr(audit, "MOST_IMAGES", CLASSES * EACH - 1)
    assert audit.look(task, index, ArrayStore(tmp_path / "c")) is None
    assert task.foundation.forwards == 0
