"""A student out of the checkpoints of a job that was stopped: nothing is trained any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tdmr.checkpoint import Checkpoints, Saved
from tdmr.config import JobSpec
from tdmr.errors import CheckpointError, NothingToRescueError
from tdmr.jobdir import Reporter
from tdmr.methods import OTHER_HEADS, evaluate_probe, finished
from tdmr.reprogram import STAGE, Teacher
from tdmr.run import Clock, conclude, owner, set_up, spent
from tdmr.stages import OURS
from tdmr.store import ArrayStore
from tdmr.task import Task, prepare, stored_views, teach


def rescue(
    spec: JobSpec,
    data: Path,
    out: Path,
    *,
    cache: Path,
    device: torch.device,
    reporter: Reporter,
    checkpoints: Checkpoints,
) -> dict[str, Any]:
    """Leave in `out` (`tdmr.trained`) the student of the last checkpoint of stage 2; its metrics.

    It is the average of the weights, with BatchNorm recalibrated: what the stage would have ended
    with at that step. Beside it are the baselines whose training had ended. The probe, and what is
    judged by another head, need stage 1, and are left out where that, or the stored features it was
    fitted on, are missing.
    Raises NothingToRescueError, CheckpointError, and what `tdmr.run.run` does.
    """
    set_up(device, spec)
    clock, store = Clock(), ArrayStore(cache)

    reporter.start("prepare")
    if not checkpoints.has(OURS):
        raise NothingToRescueError
    with clock("prepare"):
        task, _ = prepare(spec, data, store, device, reporter, input_side=False)
        checkpoints.owner = owner(task)

    reporter.start("rescue")
    # In the order in which they were saved: the last one that is found knows what was spent.
    teacher = _teacher(task, store, reporter, checkpoints)
    saved = checkpoints.find(OURS)
    assert saved is not None
    students = {OURS: finished(OURS, task, saved)}
    for name in spec.baselines:
        state = _find(name, checkpoints, reporter)
        if state is not None and state.done and (teacher or name not in OTHER_HEADS):
            students[name] = finished(name, task, state, teacher)

    reporter.start("evaluate")
    results = {name: student.evaluate(task) for name, student in students.items()}
    if teacher and "probe" in spec.baselines:
        results["probe"] = evaluate_probe(task, teacher)
    partial = {
        "stage": OURS,
        "step": saved.step,
        "steps": spec.options.training.steps,
        "missing": [name for name in spec.baselines if name not in results],
    }
    costs = spent(clock, task, checkpoints)
    metrics = conclude(out, task, students[OURS].student, teacher, results, costs, partial)
    reporter.step(1, 1)
    return metrics


def _teacher(
    task: Task, store: ArrayStore, reporter: Reporter, checkpoints: Checkpoints
) -> Teacher | None:
    """Stage 1 if a baseline is judged by it, and nothing needs to be trained or cached for it."""
    if not {"probe", *OTHER_HEADS} & set(task.spec.baselines) or task.input_side is None:
        return None
    if task.options.reprogram.trains(len(task.images.train_labels) / len(task.classes)):
        saved = _find(STAGE, checkpoints, reporter)
        if saved is None or not saved.done:
            return None
    features = stored_views(task, store, reporter)
    return None if features is None else teach(task, features, reporter, checkpoints)


def _find(stage: str, checkpoints: Checkpoints, reporter: Reporter) -> Saved | None:
    """As `Checkpoints.find`; a file that is no use is warned of, and doesn't hold up the rest."""
    try:
        return checkpoints.find(stage)
    except CheckpointError as error:
        reporter.warn(error.detail)
        return None
