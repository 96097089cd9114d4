"""Every way to train the student, by name: TDMR's stage 2 and the baselines, on equal terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tdmr import baselines, checkpoint, evaluate, memory
from tdmr.checkpoint import Checkpoints, Saved
from tdmr.distil import ProgressiveDistillation, TargetSource, adapters_for, reuse_head
from tdmr.distributed import World
from tdmr.errors import OutOfMemoryError, is_out_of_memory
from tdmr.feed import TrainingSet
from tdmr.jobdir import Reporter
from tdmr.models import Student
from tdmr.reprogram import Teacher
from tdmr.schedule import Schedule
from tdmr.stages import OURS
from tdmr.task import Task
from tdmr.training import Objective, rehearse, restored, train

OTHER_HEADS = ("simkd", "rd")  # judged by another head than the student's own
NO_REUSE = "{!r} has no classifier that is one linear map: it keeps its own, and no head is reused."
HALVE = "Halve options.training.batch_size, or choose a smaller image_size."


@dataclass(frozen=True)
class Trained:
    """A trained student, and the objective that it was trained for."""

    student: Student
    objective: Objective

    @torch.no_grad()
    def evaluate(self, task: Task) -> evaluate.Accuracy:
        """Accuracy on the held-out images."""
        predicted = evaluate.predict(
            lambda x: self.objective.logits(self.student(x)),
            task.images.held_out_student,
            task.device,
        )
        return evaluate.accuracy(predicted, task.images.held_out_labels)


def train_method(
    name: str,
    task: Task,
    teacher: Teacher | None,
    reporter: Reporter | None = None,
    checkpoints: Checkpoints = checkpoint.NONE,
    source: TargetSource | None = None,
) -> Trained:
    """A student trained by the method `name`, with the budget that all of them get.

    `source` gives TDMR other targets than the teacher's, for controls and ablations. Only
    `scratch` does without a teacher. Raises what `train` does, and OutOfMemoryError, which names
    the batch size that fits where one process trains.
    """
    options, seed = task.options.training, task.options.seed
    reuses = name == OURS and task.options.distil.head == "reused"

    def begin() -> tuple[Student, TrainingSet, Objective]:
        student = task.fresh_student()
        return student, task.training_set(), objective_for(name, task, teacher, student, source)

    def to_the_end() -> Trained:
        student, data, objective = begin()
        if reporter and reuses and student.reused is None:
            reporter.warn(NO_REUSE.format(task.spec.student))
        on_step = reporter.step if reporter else lambda step, steps, losses: None
        trained = train(
            student, data, objective, options,
            seed=seed, stage=name, on_step=on_step, checkpoints=checkpoints,
        )  # fmt: skip
        return Trained(trained, objective)

    def attempt(batch_size: int) -> None:
        rehearse(*begin(), options.model_copy(update={"batch_size": batch_size}), seed=seed)

    try:
        return to_the_end()
    except Exception as error:  # a lack of memory has many types
        if not is_out_of_memory(error):
            raise
        if World.current().size > 1:
            raise OutOfMemoryError(name, suggestion=HALVE) from error
    # Behind the handler: until it is left, its traceback holds the memory of the step that failed.
    raise memory.out_of_memory(name, options.batch_size, attempt)


def finished(name: str, task: Task, saved: Saved, teacher: Teacher | None = None) -> Trained:
    """What `train_method` would have given, had the method `name` ended where `saved` was saved.

    Those of OTHER_HEADS need the teacher.
    """
    student = task.fresh_student(pretrained=False)
    # Without a head of its own, an objective says nothing about a student that is trained.
    judge = objective_for(name if name in OTHER_HEADS else "scratch", task, teacher, student)
    return Trained(restored(student, judge, saved, task.images.train_student), judge)


def objective_for(
    name: str,
    task: Task,
    teacher: Teacher | None,
    student: Student,
    source: TargetSource | None = None,
) -> Objective:
    """What the method `name` trains `student` for; its own modules are functions of the seed.

    TDMR may put a reused head in the classifier's place.
    """
    smoothing = task.options.training.label_smoothing
    if name == "scratch":
        return baselines.Scratch(smoothing)
    assert teacher is not None, f"{name} needs a teacher"
    torch.manual_seed(task.options.seed)
    if name == OURS:
        return _ours(task, source or teacher, student)
    return BUILDERS[name](task, teacher, student)


def _ours(task: Task, source: TargetSource, student: Student) -> Objective:
    options, distil = task.options, task.options.distil
    widths = source.target_widths
    if distil.head == "reused" and not reuse_head(student, source.head, options.seed):
        distil = distil.model_copy(update={"head": "own"})
    return ProgressiveDistillation(
        source,
        adapters_for(student.tap_widths(), widths, options.seed, task.device),
        Schedule(distil, len(widths)),
        options.training.label_smoothing,
    )


def _kd(task: Task, teacher: Teacher, student: Student) -> Objective:
    options = task.options
    return baselines.Knowledge(
        teacher.probe_targets, options.training.label_smoothing, options.distil.temperature
    )


def _kd_online(task: Task, teacher: Teacher, student: Student) -> Objective:
    options = task.options
    online = baselines.Online(
        task.foundation,
        task.images.train_foundation,
        task.views,
        lambda features: teacher.probe_logits(teacher.space.standardise(features)),
        task.device,
    )
    return baselines.KnowledgeOnline(
        online, options.training.label_smoothing, options.distil.temperature
    )


def _fitnet(task: Task, teacher: Teacher, student: Student) -> Objective:
    options = task.options
    return baselines.FitNet(
        teacher.probe_targets,
        teacher,
        adapters_for(student.tap_widths(), teacher.widths, options.seed, task.device),
        options.training.label_smoothing,
        options.distil.temperature,
    )


def _simkd(task: Task, teacher: Teacher, student: Student) -> Objective:
    return baselines.SimKD(teacher, student.tap_widths()[-1], teacher.probe.full)


def _aft(task: Task, teacher: Teacher, student: Student) -> Objective:
    return baselines.AFT(teacher, task.options.training.label_smoothing, task.device)


def _rd(task: Task, teacher: Teacher, student: Student) -> Objective:
    options = task.options
    return baselines.OneStage(
        teacher,
        student.tap_widths()[-1],
        options.reprogram.proxy_dim,
        len(task.classes),
        options.training.label_smoothing,
        task.device,
    )


BUILDERS: dict[str, Callable[[Task, Teacher, Student], Objective]] = {
    "kd": _kd,
    "kd_online": _kd_online,
    "fitnet": _fitnet,
    "simkd": _simkd,
    "aft": _aft,
    "rd": _rd,
}


def evaluate_probe(task: Task, teacher: Teacher) -> evaluate.Accuracy:
    """Held-out accuracy of the linear probe on the foundation's last features."""

    def classify(x: Tensor) -> Tensor:
        features = torch.cat(task.foundation.features(x), dim=1)
        return teacher.probe_logits(teacher.space.standardise(features))

    predicted = evaluate.predict(classify, task.images.held_out_foundation, task.device)
    return evaluate.accuracy(predicted, task.images.held_out_labels)
