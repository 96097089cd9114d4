"""A reused head: taught while it is there, folded away in the end, left out where it can't be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tdmr import checkpoint, training
from tdmr.checkpoint import Checkpoints
from tdmr.config import JobSpec
from tdmr.distil import ProgressiveDistillation, reuse_head
from tdmr.errors import Stopped
from tdmr.feed import Batch
from tdmr.jobdir import Reporter
from tdmr.methods import finished, objective_for, train_method
from tdmr.models import Student, make_student
from tdmr.probe import Ridge
from tdmr.readout import ReusedHead
from tdmr.reprogram import Teacher
from tdmr.stages import OURS
from tdmr.store import ArrayStore
from tdmr.task import Task, cache_views, prepare, teach

CPU = torch.device("cpu")
STUDENTS = ["test_resnet", "test_vit", "test_coatnet"]


def ridge(read: int = 10, classes: int = 3) -> Ridge:
    torch.manual_seed(0)
    return Ridge(torch.randn(read, classes), torch.randn(classes), 4.0)


@pytest.fixture
def made(spec: JobSpec, shapes: Path, tmp_path: Path) -> tuple[Task, Teacher]:
    silent, store = Reporter(None, ["prepare"]), ArrayStore(tmp_path / "cache")
    distil = spec.options.distil.model_copy(update={"head": "reused"})
    options = spec.options.model_copy(update={"distil": distil})
    task, _ = prepare(spec.model_copy(update={"options": options}), shapes, store, CPU, silent)
    return task, teach(task, cache_views(task, store, silent), silent)


def of_family(made: tuple[Task, Teacher], student: str) -> tuple[Task, Teacher]:
    task, teacher = made
    return replace(task, spec=task.spec.model_copy(update={"student": student})), teacher


def test_it_classifies_by_what_it_reads_as_the_head_that_it_is_made_of() -> None:
    theirs = ridge()
    head = ReusedHead.of(theirs, 7)
    features = torch.randn(5, 7)
    logits, read = head.split(head(features))
    torch.testing.assert_close(read, head.adapter(features))
    torch.testing.assert_close(logits, theirs.logits(read))


def test_folded_it_is_one_linear_map_with_the_same_logits() -> None:
    head = ReusedHead.of(ridge(), 7)
    features = torch.randn(5, 7)
    folded = head.folded()
    assert (folded.in_features, folded.out_features) == (7, 3)
    torch.testing.assert_close(folded(features), head(features)[:, :3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_of_any_family_gives_logits_and_what_they_were_read_from(name: str) -> None:
    student = make_student(name, 32, 4, 3, pretrained=False, seed=0).eval()
    plain, images = student.state_dict().keys(), torch.rand(2, 3, 32, 32)
    assert student(images).read.shape == (2, 0)
    assert reuse_head(student, ridge(), seed=1)
    output = student(images)
    assert (output.logits.shape, output.read.shape) == ((2, 3), (2, 10))
    torch.testing.assert_close(output.logits, ridge().logits(output.read))
    student.fold()
    assert student.state_dict().keys() == plain
    torch.testing.assert_close(student(images).logits, output.logits, rtol=1e-4, atol=1e-4)
    assert student(images).read.shape == (2, 0)


def test_what_is_read_is_met_in_the_mean_square_from_the_first_step(
    made: tuple[Task, Teacher],
) -> None:
    task, teacher = made
    student = task.fresh_student()
    objective = objective_for(OURS, task, teacher, student)
    images, views = np.arange(6), np.zeros(6, dtype=np.int64)
    pixels = task.views.render(task.images.train_student, images, views, CPU)
    labels = F.one_hot(task.images.train_labels[:6], 3).float()
    output = student.eval()(pixels)
    parts = objective(Batch(images, views, pixels, labels), output, 0.0)
    standard = torch.cat(teacher.features_of(images, views), dim=1)
    torch.testing.assert_close(parts["read"], F.mse_loss(output.read, standard))
    auxiliary = 2.0 * parts["proxy"] + 1.0 * parts["relation"]
    torch.testing.assert_close(parts["loss"], auxiliary + parts["read"])  # labels come later


@pytest.mark.parametrize("name", STUDENTS)
def test_training_leaves_a_plain_student_and_the_head_as_it_was(
    made: tuple[Task, Teacher], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, teacher = of_family(made, name)
    heads: list[ReusedHead] = []
    fit = training._fit_for_use

    def spy(student: Student) -> Student:
        assert student.reused is not None
        heads.append(student.reused)
        return fit(student)

    monkeypatch.setattr(training, "_fit_for_use", spy)
    trained = train_method(OURS, task, teacher)
    fresh = task.fresh_student()
    assert trained.student.state_dict().keys() == fresh.state_dict().keys()
    (head,) = heads
    torch.testing.assert_close(head.weight, teacher.head.weight * teacher.head.sharpness)
    begun = task.fresh_student()
    reuse_head(begun, teacher.head, task.options.seed)
    assert begun.reused is not None
    assert not torch.equal(head.adapter.weight, begun.reused.adapter.weight)


def same(a: Student, b: Student) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in a.state_dict().items())


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_out_of_a_checkpoint_has_its_head_folded(
    made: tuple[Task, Teacher], tmp_path: Path, name: str
) -> None:
    task, teacher = of_family(made, name)
    steps = iter(range(1, 12))
    kept = Checkpoints(tmp_path, stopping=lambda: next(steps) == 5)
    with pytest.raises(Stopped):
        train_method(OURS, task, teacher, checkpoints=kept)
    halfway = Checkpoints(tmp_path).find(OURS)
    assert halfway is not None
    rescued = finished(OURS, task, halfway).student

    as_it_was = task.fresh_student()
    assert reuse_head(as_it_was, teacher.head, seed=9)
    checkpoint.restore_module("average.0", as_it_was, halfway.tensors)
    training.recalibrate(as_it_was, task.images.train_student)
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        theirs, ours = as_it_was.eval()(images).logits, rescued(images).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)

    whole = train_method(OURS, task, teacher, checkpoints=Checkpoints(tmp_path))
    done = Checkpoints(tmp_path).find(OURS)
    assert done is not None
    assert same(finished(OURS, task, done).student, whole.student)
    assert same(
        train_method(OURS, task, teacher, checkpoints=Checkpoints(tmp_path)).student, whole.student
    )


def test_a_student_without_one_linear_classifier_keeps_its_own_and_says_so(
    made: tuple[Task, Teacher],
) -> None:
    name = "deit_tiny_distilled_patch16_224"  # one for the class token, one for distillation
    task, teacher = of_family(made, name)
    student = task.fresh_student()
    assert student.classifier_width is None
    objective = objective_for(OURS, task, teacher, student)
    assert student.reused is None
    assert isinstance(objective, ProgressiveDistillation)
    assert objective._schedule.at(0).ce == 0.3
    told: list[str] = []
    reporter = Reporter(None, [OURS])
    reporter.listeners.append(lambda line: told.append(line.message or ""))
    train_method(OURS, task, teacher, reporter, Checkpoints())
    (warning,) = filter(None, told)
    assert f"{name!r} has no classifier that is one linear map" in warning
