"""What a user can get wrong: a typed error that says what to change, or a warning."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor

from tdmr import distil, reprogram
from tdmr.baselines import Scratch
from tdmr.checkpoint import Checkpoints
from tdmr.config import JobSpec
from tdmr.data.index import DatasetIndex, load_index
from tdmr.errors import DatasetError, DatasetWarning
from tdmr.jobdir import JobDir
from tests.shapes import draw
from tests.tdmr.jobs import Jobs


def draw_files(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path.parent.name, number).save(path)
    return folder


@pytest.fixture
def jobs(spec: JobSpec, shapes: Path, tmp_path: Path) -> Jobs:
    return Jobs(spec, shapes, tmp_path)


def with_training(spec: JobSpec, **changes: Any) -> JobSpec:
    options = spec.options
    training = options.training.model_copy(update=changes)
    return spec.model_copy(update={"options": options.model_copy(update={"training": training})})


# Datasets


def test_a_class_that_nothing_is_trained_on(jobs: Jobs, tmp_path: Path) -> None:
    data = draw_files(
        tmp_path / "data",
        *("train/circle/1.png", "train/cross/1.png", "test/circle/1.png", "test/square/1.png"),
    )
    failure = jobs.run(data=data).failure
    assert (failure.code, failure.stage, failure.user_error) == ("dataset", "prepare", True)
    assert "'square' has no image to train on" in failure.detail
    assert failure.suggestion is not None
    assert "training split, or remove" in failure.suggestion


def test_fewer_images_than_classes(tmp_path: Path) -> None:
    (tmp_path / "cross").mkdir()
    with pytest.raises(DatasetError, match=r"1 class.*folder of its own"):
        load_index(draw_files(tmp_path, "circle/1.png"))
    with pytest.raises(DatasetError, match=r"No image is held out.*at least 2 images"):
        load_index(draw_files(tmp_path, "circle/1.png", "square/1.png"))


def test_a_class_that_is_not_held_out_is_warned_of(jobs: Jobs, tmp_path: Path) -> None:
    """It can be trained on, and the accuracy is that of the other classes."""
    data = draw_files(
        tmp_path / "data",
        *("circle/1.png", "circle/2.png", "circle/3.png", "cross/1.png", "cross/2.png"),
        "square/1.png",
    )
    ended = jobs.run(data=data)
    assert ended.status == 0
    warnings = [words for words in ended.warnings if "held out" in words]
    assert len(warnings) == 1
    assert "'square'" in warnings[0]
    assert "2 of 3 classes" in warnings[0]
    with pytest.warns(DatasetWarning, match="'square'"):
        assert load_index(data).untested == ["square"]


def test_a_class_missing_in_a_split_that_is_not_used(tmp_path: Path) -> None:
    """Accuracy is reported on `test`, so what `val` lacks doesn't matter."""
    names = [f"{split}/{label}/1.png" for split in ("train", "test") for label in ("a", "b")]
    assert load_index(draw_files(tmp_path, *names, "val/a/1.png")).untested == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": ["circle", "cross"]}, "'square', which `classes` doesn't name"),
        ({"classes": ["circle", "cross", "square", "cross"]}, "names a class twice"),
        ({"classes": ["circle", "cross", "square", "star"]}, "'star' has no image"),
    ],
)
def test_an_index_that_contradicts_itself(
    jobs: Jobs, shapes: Path, tmp_path: Path, changes: Any, words: str
) -> None:
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    index: DatasetIndex = load_index(shapes).model_copy(update=changes)
    (data / "index.json").write_text(index.model_dump_json())
    failure = jobs.run(data=data).failure
    assert failure.code == "dataset"
    assert words in failure.detail
    assert failure.suggestion


def test_an_image_that_is_gone(jobs: Jobs, shapes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    (data / "index.json").write_text(load_index(shapes).model_dump_json())
    (data / "train" / "cross" / "3.png").unlink()
    failure = jobs.run(data=data).failure
    assert (failure.code, failure.stage) == ("dataset", "prepare")
    assert "3.png" in failure.detail


def test_fewer_images_than_a_batch(jobs: Jobs, spec: JobSpec) -> None:
    """A batch then shows some of the images twice, in different views."""
    assert jobs.run(options=with_training(spec, batch_size=40, steps=2).options).status == 0


def test_a_foundation_smaller_than_the_student(jobs: Jobs) -> None:
    """96,000 parameters against 373,000: allowed, and said."""
    ended = jobs.run()
    assert ended.status == 0
    assert any("fewer than the student's" in words for words in ended.warnings)


# Losses


def nan_from(step: int, monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> None:
    """Let the loss `name` of the module or class `place` be a NaN from its call `step` on."""
    real, calls = getattr(place, name), iter(range(10_000))

    def broken(*arguments: Any) -> Any:
        result = real(*arguments)
        if next(calls) < step:
            return result
        if isinstance(result, Tensor):
            return result * float("nan")
        return {key: part * float("nan") for key, part in result.items()}

    monkeypatch.setattr(place, name, broken)


@pytest.mark.parametrize(
    ("stage", "place", "name", "calls", "reported", "durable"),
    [
        # 4 taps, and one look per step
        ("reprogram", reprogram, "cka_distance", 4 * 7, 7, 7),
        # a look at steps 0 and 10: what diverged in step 7 is never saved
        ("distil", distil, "distillation", 7, 10, 7),
        ("scratch", Scratch, "__call__", 7, 10, 7),
    ],
)
def test_a_loss_that_is_not_finite(
    jobs: Jobs,
    spec: JobSpec,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    place: Any,
    name: str,
    calls: int,
    reported: int,
    durable: int,
) -> None:
    with monkeypatch.context() as patch:
        nan_from(calls, patch, place, name)
        ended = jobs.run(baselines=("scratch",))
    failure = ended.failure
    assert (failure.code, failure.stage, failure.user_error) == ("non_finite_loss", stage, True)
    assert f"stage {stage!r} stopped being finite at step {reported}" in failure.detail
    assert failure.suggestion is not None
    assert "learning_rate" in failure.suggestion
    group, rate = ("reprogram", 0.001) if stage == "reprogram" else ("training", 0.000667)
    assert failure.change == {"options": {group: {"learning_rate": rate}}}
    assert not ended.job.out.exists()

    saved = Checkpoints(ended.job.checkpoint, owner=owner_of(ended.job, stage)).find(stage)
    assert saved is not None
    assert (saved.step, saved.done) == (durable, False)
    assert all(tensor.isfinite().all() for tensor in saved.tensors.values())
    assert jobs.run(baselines=("scratch",)).status == 0  # it is gone on from


def owner_of(job: JobDir, stage: str) -> str:
    with safe_open(job.checkpoint / f"{stage}.safetensors", framework="pt") as file:
        owner: str = json.loads(file.metadata()["facts"])["owner"]
    return owner
