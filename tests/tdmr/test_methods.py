"""The baselines: what each is trained for, on equal terms, and what each costs the foundation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tdmr import methods, task
from tdmr.config import BASELINES, JobSpec
from tdmr.feed import Batch
from tdmr.jobdir import Reporter
from tdmr.losses import cka_distance, relation
from tdmr.models import StudentOutput
from tdmr.reprogram import Teacher
from tdmr.stages import OURS
from tdmr.store import ArrayStore
from tdmr.task import Task

CPU = torch.device("cpu")
LEARNED = [name for name in BASELINES if name != "probe"]


@dataclass(frozen=True)
class Made:
    """A task whose stage 1 is done."""

    job: Task
    teacher: Teacher


@pytest.fixture
def made(spec: JobSpec, shapes: Path, tmp_path: Path) -> Made:
    reporter, store = Reporter(None, ["prepare"]), ArrayStore(tmp_path)
    job, _ = task.prepare(spec, shapes, store, CPU, reporter)
    return Made(job, task.teach(job, task.cache_views(job, store, reporter), reporter))


def example(made: Made) -> tuple[Batch, StudentOutput]:
    """A batch of stored views, and a student's answer to it."""
    student = made.job.fresh_student()
    images, views = np.arange(6), np.arange(6) % 3
    pixels = made.job.views.render(made.job.images.train_student, images, views, CPU)
    labels = F.one_hot(made.job.images.train_labels[:6], 3).float()
    return Batch(images, views, pixels, labels), student.eval()(pixels)


def parts(made: Made, name: str) -> tuple[dict[str, float], Any, Batch, StudentOutput]:
    batch, output = example(made)
    objective: Any = methods.objective_for(name, made.job, made.teacher, made.job.fresh_student())
    return {k: v.item() for k, v in objective(batch, output, 0.5).items()}, objective, batch, output


def test_every_baseline_starts_from_the_same_student(made: Made) -> None:
    first, second = made.job.fresh_student(), made.job.fresh_student()
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", [*LEARNED, OURS])
def test_each_learns_and_leaves_the_foundation_alone(made: Made, name: str) -> None:
    before, seen = made.job.foundation.weights_hash(), made.job.foundation.forwards
    training = made.job.options.training.model_copy(update={"steps": 60, "batch_size": 12})
    options = made.job.options.model_copy(update={"training": training})
    job = replace(made.job, spec=made.job.spec.model_copy(update={"options": options}))
    losses: list[float] = []
    reporter = Reporter(None, [name], interval=0)
    reporter.listeners.append(lambda line: losses.append(line.losses["loss"]))
    trained = methods.train_method(name, job, made.teacher, reporter)
    assert losses[-1] < losses[0]
    assert trained.evaluate(job).value > 1 / 3
    assert job.foundation.weights_hash() == before
    # Only with the foundation in the loop does a step cost forwards: 60 steps of 12 images.
    assert job.foundation.forwards - seen == (720 if name == "kd_online" else 0)
    foundation = {id(p) for p in job.foundation.model.parameters()}
    own = {id(p) for m in trained.objective.modules() for p in m.parameters()}
    assert not own & foundation


def test_fresh_views_are_for_those_that_need_no_cache(made: Made) -> None:
    stored = {
        name: methods.objective_for(
            name, made.job, made.teacher, made.job.fresh_student()
        ).stored_views
        for name in LEARNED
    }
    assert [name for name, value in stored.items() if not value] == ["scratch", "kd_online"]


def test_fitnet_adds_the_mean_square_of_all_raw_taps(made: Made) -> None:
    got, objective, batch, output = parts(made, "fitnet")
    theirs = made.teacher.features_of(batch.images, batch.views)
    (regressors,) = objective.modules()
    expected = [F.mse_loss(a, b) for a, b in zip(regressors(output.taps), theirs, strict=True)]
    assert got["hint"] == pytest.approx(torch.stack(expected).mean().item())
    assert got["loss"] == pytest.approx(0.3 * got["ce"] + 0.7 * got["kd"] + got["hint"])


def test_simkd_is_judged_by_the_probe_on_projected_features(made: Made) -> None:
    got, objective, batch, output = parts(made, "simkd")
    (projector,) = objective.modules()
    projected = projector(output.taps[-1])
    last = made.teacher.features_of(batch.images, batch.views)[-1]
    assert got["loss"] == pytest.approx(F.mse_loss(projected, last).item())
    torch.testing.assert_close(objective.logits(output), made.teacher.probe.full.logits(projected))


def test_aft_compares_kernels_through_gates(made: Made) -> None:
    got, _, batch, output = parts(made, "aft")
    last = made.teacher.features_of(batch.images, batch.views)[-1]
    kernel = relation(output.taps[-1], last * torch.sigmoid(torch.tensor(2.0))).item()
    assert got["kernel"] == pytest.approx(kernel, rel=1e-5)
    assert got["loss"] == pytest.approx(got["ce"] + 3 * got["kernel"])


def test_one_stage_shares_a_classifier(made: Made) -> None:
    got, objective, batch, output = parts(made, "rd")
    reprogram, adapter, classifier = objective.modules()
    z = reprogram(made.teacher.features_of(batch.images, batch.views)[-1])
    a = adapter(output.taps[-1])
    assert got["cka"] == pytest.approx(cka_distance(a, z).item(), abs=1e-6)
    assert got["loss"] == pytest.approx(got["ce"] + got["foundation_ce"] + got["cka"], rel=1e-5)
    torch.testing.assert_close(objective.logits(output), classifier(a))


def test_online_and_cached_distillation_agree_on_the_same_view(made: Made) -> None:
    """The teacher of both is one: features of a stored view, live or from the cache."""
    _, online, batch, _ = parts(made, "kd_online")
    live = online._teacher(batch.images, batch.views)
    cached = made.teacher.probe_targets(batch.images, batch.views)
    torch.testing.assert_close(live, cached, rtol=2e-2, atol=2e-2)  # stored in half precision
