"""Every way to train the student, by name: TDMR's stage 2 and the baselines, on equal terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tdmr import baselines, checkpoint, evaluate
from tdmr.checkpoint import Checkpoints
from tdmr.distil import ProgressiveDistillation, TargetSource, adapters_for
from tdmr.jobdir import Reporter
from tdmr.models import Student
from tdmr.reprogram import Teacher
from tdmr.schedule import Schedule
from tdmr.task import Task
from tdmr.training import Objective, train

OURS = "distil"


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
    `scratch` does without a teacher.
    """
    student = task.fresh_student()
    objective = objective_for(name, task, teacher, student, source)
    trained = train(
        student,
        task.training_set(),
        objective,
        task.options.training,
        seed=task.options.seed,
        stage=name,
        on_step=reporter.step if reporter else lambda step, steps, losses: None,
        checkpoints=checkpoints,
    )
    return Trained(trained, objective)


def objective_for(
    name: str,
    task: Task,
    teacher: Teacher | None,
    student: Student,
    source: TargetSource | None = None,
) -> Objective:
    """What the method `name` trains `student` for; its own modules are functions of the seed."""
    smoothing = task.options.training.label_smoothing
    if name == "scratch":
        return baselines.Scratch(smoothing)
    assert teacher is not None, f"{name} needs a teacher"
    torch.manual_seed(task.options.seed)
    if name == OURS:
        return _ours(task, source or teacher, student)
    return BUILDERS[name](task, teacher, student)


def _ours(task: Task, source: TargetSource, student: Student) -> Objective:
    options = task.options
    widths = source.target_widths
    return ProgressiveDistillation(
        source,
        adapters_for(student.tap_widths(), widths, options.seed, task.device),
        Schedule(options.distil, len(widths)),
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
