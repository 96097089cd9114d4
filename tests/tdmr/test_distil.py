"""Both stages: what they teach, and that no gradient reaches the foundation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tdmr.cache import ViewCache, ViewFeatures
from tdmr.config import (
    FEW_SHOTS,
    DistilOptions,
    ReprogramOptions,
    TrainingOptions,
    ViewOptions,
)
from tdmr.data.index import load_index
from tdmr.data.pixels import pixel_store
from tdmr.distil import Adapters, ProgressiveDistillation, adapters_for
from tdmr.feed import Batch, TrainingSet
from tdmr.models import StudentOutput, load_foundation, make_student
from tdmr.probe import Ridge
from tdmr.proxy import FLOOR, Targets, relevance
from tdmr.reprogram import Teacher, reprogram
from tdmr.schedule import Schedule
from tdmr.store import ArrayStore
from tdmr.task import labels
from tdmr.training import train
from tdmr.views import Views

CPU = torch.device("cpu")
OPTIONS = ReprogramOptions(mode="trained", proxy_dim=16, steps=60, batch_size=32)
VIEWS = Views(ViewOptions(count=4, mix=0), "v", 0)


def made_up_features(classes: int = 3) -> tuple[ViewFeatures, torch.Tensor]:
    """Two taps of widths 20 and 12; the class shows in the second one alone."""
    rng = np.random.default_rng(0)
    y = np.arange(12) % classes
    array = rng.normal(size=(4, 12, 32)).astype(np.float16)
    array[:, :, 20:] += (4 * np.eye(12)[y]).astype(np.float16)
    return ViewFeatures(array, (20, 12), reused=False), torch.from_numpy(y)


def test_stage_one_learns_the_task_and_keeps_what_it_was_given() -> None:
    features, y = made_up_features()
    history: list[dict[str, float]] = []
    teacher = reprogram(
        features, VIEWS, y, 3, OPTIONS, seed=0, device=CPU, on_step=lambda *a: history.append(a[2])
    )
    assert history[-1]["task"] < 0.7 * history[0]["task"]
    assert set(history[0]) == {"loss", "task", "preserve", "consistency"}
    targets = teacher.targets(np.arange(12), np.zeros(12, dtype=np.int64))
    assert [tuple(p.shape) for p in targets.proxies] == [(12, 16), (12, 16)]
    assert torch.equal(targets.logits.argmax(1), y)
    assert teacher.ridge.accuracy > 0.8


def test_targets_come_out_of_fold_when_asked() -> None:
    features, y = made_up_features()
    options = OPTIONS.model_copy(update={"out_of_fold": True})
    teacher = reprogram(features, VIEWS, y, 3, options, seed=0, device=CPU)
    images, views = np.arange(12), np.zeros(12, dtype=np.int64)
    rows = torch.from_numpy(features.array[0].astype(np.float32))
    standard = teacher.space.standardise(rows)
    logits = teacher.targets(images, views).logits
    for image in range(12):
        ridge = teacher.ridge.folds[int(teacher.ridge.fold[image])]
        torch.testing.assert_close(logits[image], ridge.logits(standard)[image])
    assert not torch.allclose(logits, teacher.ridge.full.logits(standard))


def test_preservation_keeps_structure_that_labels_do_not_need() -> None:
    features, y = made_up_features()

    def kept(weight: float) -> float:
        losses: list[float] = []
        options = OPTIONS.model_copy(update={"preserve": weight, "consistency": 0.0})
        reprogram(
            features, VIEWS, y, 3, options, seed=0, device=CPU,
            on_step=lambda *a: losses.append(a[2]["preserve"]),
        )  # fmt: skip
        return losses[-1]

    assert kept(5.0) < 0.7 * kept(0.0)


def test_stage_one_is_a_function_of_its_seed() -> None:
    features, y = made_up_features()
    first, second, third = (
        reprogram(features, VIEWS, y, 3, OPTIONS, seed=s, device=CPU).space.heads for s in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


class Fixed:
    """Targets that are what the test says."""

    target_widths = (8, 8)

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    @property
    def head(self) -> Ridge:
        raise AssertionError("what a student reuses is put in it before")

    def targets(self, images: Any, views: Any) -> Targets:
        return self._targets


@pytest.mark.parametrize(("head", "read"), [("own", 0), ("reused", 16)])
def test_the_loss_is_the_weighted_sum_of_its_parts(
    head: Literal["own", "reused"], read: int
) -> None:
    torch.manual_seed(0)
    source = Fixed(Targets(torch.randn(2, 6, 8).unbind(), torch.randn(6, 3), torch.randn(6, 16)))
    options = DistilOptions(
        ce=0.7, kd=0.3, proxy=2.0, relation=1.5, head=head, read=3.0, objective="flat"
    )
    schedule = Schedule(options, taps=2)
    objective = ProgressiveDistillation(source, Adapters([5, 4], [8, 8]), schedule, 0.1)
    output = StudentOutput(
        torch.randn(6, 3), [torch.randn(6, 5), torch.randn(6, 4)], torch.randn(6, read)
    )
    batch = Batch(
        np.arange(6), np.arange(6), torch.empty(0), F.one_hot(torch.arange(6) % 3).float()
    )
    parts = {k: v.item() for k, v in objective(batch, output, 0.3).items()}
    assert parts["loss"] == pytest.approx(
        0.7 * parts["ce"] + 0.3 * parts["kd"] + 2.0 * parts["proxy"] + 1.5 * parts["relation"]
        + 3.0 * parts.get("read", 0)
    )  # fmt: skip
    assert ("read" in parts) == (head == "reused")


def test_a_perfect_student_has_no_proxy_loss() -> None:
    torch.manual_seed(0)
    taps = [torch.randn(6, 8), torch.randn(6, 8)]
    source = Fixed(Targets([3 * tap for tap in taps], torch.randn(6, 3), torch.empty(6, 16)))
    adapters = Adapters([8, 8], [8, 8])
    for layer in adapters.layers:
        torch.nn.init.eye_(layer.weight)  # type: ignore[arg-type]  # what is given is meant to vary
        torch.nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # what is given is meant to vary
    objective = ProgressiveDistillation(source, adapters, Schedule(DistilOptions(), taps=2), 0.1)
    batch = Batch(
        np.arange(6), np.arange(6), torch.empty(0), F.one_hot(torch.arange(6) % 3).float()
    )
    parts = objective(batch, StudentOutput(torch.randn(6, 3), taps, torch.empty(6, 0)), 0.3)
    assert parts["proxy"].item() == pytest.approx(0, abs=1e-6)
    assert parts["relation"].item() == pytest.approx(0, abs=1e-5)


def test_a_shallow_student_serves_deep_taps_with_its_last() -> None:
    assert Adapters([4, 6], [8] * 4).sources == [0, 1, 1, 1]


def test_no_gradient_reaches_the_foundation_in_either_stage(
    foundation_folder: Path, shapes: Path, tmp_path: Path
) -> None:
    foundation = load_foundation(f"local-dir:{foundation_folder}", None, 4, CPU)
    before = foundation.weights_hash()
    index, store = load_index(shapes), ArrayStore(tmp_path)
    pixels = pixel_store(shapes, index.split("train"), 32, store)
    y = labels(index.split("train"), index.classes)
    views = Views(ViewOptions(count=2), index.version, 0)
    features = ViewCache(store, foundation, pixels, views).features({})
    teacher: Teacher = reprogram(features, views, y, 3, OPTIONS, seed=0, device=CPU)
    student = make_student("test_resnet", 32, 4, 3, pretrained=False, seed=0)
    objective = ProgressiveDistillation(
        teacher,
        adapters_for(student.tap_widths(), teacher.target_widths, 0, CPU),
        Schedule(DistilOptions(), 4),
        0.1,
    )
    history: list[dict[str, float]] = []
    train(
        student,
        TrainingSet(pixels, y, 3, views),
        objective,
        TrainingOptions(steps=61, batch_size=12),
        seed=0,
        stage="distil",
        on_step=lambda *a: history.append(a[2]),
    )
    assert foundation.weights_hash() == before
    assert all(p.grad is None and not p.requires_grad for p in foundation.model.parameters())
    trained = {id(p) for m in (student, *objective.modules()) for p in m.parameters()}
    assert not trained & {id(p) for p in foundation.model.parameters()}
    assert history[-1]["proxy"] < 0.8 * history[0]["proxy"]
    assert history[-1]["ce"] < history[0]["ce"]


def test_the_closed_form_weighs_what_the_task_turns_on() -> None:
    """Dimension 0 tells classes apart, 1 only images, 2 differs by chance between few images."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    rows = torch.randn(400, 3, generator=generator)
    images = torch.arange(400) % 200
    rows[:, 0] += 3.0 * labels[images]
    rows[:, 1] += 3.0 * torch.randn(200, generator=generator)[images]
    first, second, third = relevance(rows, images, labels).square().tolist()
    assert first == pytest.approx(FLOOR + 3.0, rel=0.05)  # all of the mean over three dimensions
    assert second == pytest.approx(FLOOR, abs=0.1)
    assert third == pytest.approx(FLOOR, abs=0.1)


def test_one_image_per_class_has_a_relevance_too() -> None:
    rows = torch.tensor([[0.0, 1.0], [2.0, 1.1], [0.1, 1.0], [2.1, 1.1]])
    found = relevance(rows, torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1]))
    assert found.isfinite().all()


def test_few_images_get_the_closed_form_and_many_a_training() -> None:
    features, y = made_up_features()
    auto = OPTIONS.model_copy(update={"mode": "auto"})
    teacher = reprogram(features, VIEWS, y, 3, auto, seed=0, device=CPU)
    assert teacher.space.heads is None
    assert list(teacher.target_widths) == list(features.widths)
    images, views = np.arange(12), np.zeros(12, dtype=np.int64)
    targets = teacher.targets(images, views)
    standard = teacher.space.standardise(torch.from_numpy(features.array[0].astype(np.float32)))
    torch.testing.assert_close(targets.logits, teacher.ridge.full.logits(standard))
    weighed = torch.cat(list(targets.proxies), dim=1)
    torch.testing.assert_close(weighed, standard * teacher.space.weight)
    assert (auto.trains(FEW_SHOTS), auto.trains(FEW_SHOTS - 1)) == (True, False)
