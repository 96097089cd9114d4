"""A student out of the checkpoints of a job that was stopped: nothing is trained any more."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tdmr import process, trained, training
from tdmr import task as task_module
from tdmr.checkpoint import Checkpoints
from tdmr.config import InputOptions, JobSpec
from tdmr.errors import Failure
from tdmr.jobdir import STOPPED_STATUS, JobDir, ProgressLine, Reporter
from tdmr.methods import finished, train_method
from tdmr.run import owner
from tdmr.store import ArrayStore
from tdmr.task import Task, cache_views, prepare, teach
from tests.tdmr.jobs import Jobs

CPU = torch.device("cpu")
STEPS = 12
ALL = ("probe", "kd", "simkd", "rd", "fitnet")


@pytest.fixture
def jobs(spec: JobSpec, shapes: Path, tmp_path: Path) -> Jobs:
    return Jobs(spec, shapes, tmp_path)


def lines(job: JobDir) -> list[ProgressLine]:
    return [line for _, line in job.read()]


def stopped_in(jobs: Jobs, stage: str, step: int | None = None, **changes: Any) -> JobDir:
    """A job that was asked to stop in `stage`: before `step`, or where the stage begins."""
    job = jobs.make("stopped", **changes)

    def stopping() -> bool:
        saved = [line.checkpoint for line in lines(job)].count(f"{stage}.safetensors")
        begun = [line.stage.name for line in lines(job) if line.stage]
        return begun[-1:] == [stage] if step is None else saved >= step - 1

    status = process.run_job(
        job.path, device="cpu", cache=jobs.folder / "cache", stopping=stopping, checkpoint_seconds=0
    )
    assert status == STOPPED_STATUS
    return job


def rescued(job: JobDir, cache: Path, **options: Any) -> dict[str, Any]:
    """What metrics.json in the bundle says; the checkpoints are untouched."""
    before = {path.name: path.read_bytes() for path in job.checkpoint.iterdir()}
    assert process.rescue_job(job.path, device="cpu", cache=cache, **options) == 0
    assert {path.name: path.read_bytes() for path in job.checkpoint.iterdir()} == before
    metrics: dict[str, Any] = json.loads((job.out / "metrics.json").read_text())
    assert lines(job)[-1].result == metrics
    return metrics


def failure(job: JobDir, cache: Path) -> Failure:
    assert process.rescue_job(job.path, device="cpu", cache=cache) == 1
    assert not job.out.exists()
    found = lines(job)[-1].failure
    assert found is not None
    return found


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def test_a_student_whose_training_had_ended(jobs: Jobs) -> None:
    """The weights of the uninterrupted run, to the bit; and every baseline that is there."""
    whole = jobs.run("whole", baselines=ALL)
    job = stopped_in(jobs, "fitnet", 3, baselines=ALL)
    metrics = rescued(job, jobs.folder / "cache")
    assert (job.out / "model.safetensors").read_bytes() == (
        whole.job.out / "model.safetensors"
    ).read_bytes()
    assert metrics["partial"] == {
        "stage": "distil", "step": STEPS, "steps": STEPS, "missing": ["fitnet"],
    }  # fmt: skip
    full = json.loads((whole.job.out / "metrics.json").read_text())
    assert full["partial"] is None
    assert metrics["accuracy"] == full["accuracy"]
    assert list(metrics["baselines"]) == ["kd", "simkd", "rd", "probe"]
    for name, row in metrics["baselines"].items():
        assert row["accuracy"] == full["baselines"][name]["accuracy"]
    assert metrics["out_of_fold_accuracy"] == full["out_of_fold_accuracy"]
    card = (job.out / "README.md").read_text()
    assert "stopped early, after the last step, 12, of stage `distil`" in card
    assert "Not measured: fitnet." in card
    names = sorted(path.name for path in whole.job.out.iterdir())
    assert sorted(path.name for path in job.out.iterdir()) == names


def test_a_student_in_the_middle_of_its_training(jobs: Jobs, shapes: Path) -> None:
    """What the loop would have ended with: its average, fitted to clean images."""
    job = stopped_in(jobs, "distil", 5, baselines=("kd",))
    metrics = rescued(job, jobs.folder / "cache")
    assert metrics["partial"] == {
        "stage": "distil", "step": 5, "steps": STEPS, "missing": ["kd"],
    }  # fmt: skip
    first = (job.out / "README.md").read_text().partition("# ")[2].splitlines()[2]
    assert first.startswith("**Training was stopped early, at step 5 of 12 of stage `distil`.**")

    start = "average.0.model."
    saved = load_file(job.checkpoint / "distil.safetensors")
    average = {k.removeprefix(start): t for k, t in saved.items() if k.startswith(start)}
    found = weights(job.out)
    assert average.keys() == found.keys()
    differing = {name for name in found if not torch.equal(found[name], average[name])}
    assert differing
    assert all(map(is_statistic, differing))

    task, _ = prepare(
        jobs.spec, shapes, ArrayStore(jobs.folder / "cache"), CPU, Reporter(None, ["prepare"])
    )
    student = task.fresh_student().to(memory_format=torch.channels_last)  # type: ignore[call-overload] # as torch declares it
    student.model.load_state_dict(average)
    training.recalibrate(student, task.images.train_student)
    assert same(dict(student.model.state_dict()), found)


def test_stages_and_times(jobs: Jobs) -> None:
    job = stopped_in(jobs, "kd", baselines=("kd",))
    before = len(lines(job))
    metrics = rescued(job, jobs.folder / "cache")
    said = lines(job)[before:]
    names = [line.stage.name for line in said if line.stage]
    assert list(dict.fromkeys(names)) == ["prepare", "rescue", "evaluate", "bundle"]
    assert {line.stage.count for line in said if line.stage} == {4}
    assert {"prepare", "cache", "reprogram", "distil"} <= set(metrics["seconds"])
    assert metrics["seconds"]["distil"] > 0
    assert metrics["foundation"]["forwards"] == 18 * 3


def test_a_process_of_its_own_without_packaging(jobs: Jobs) -> None:
    job = stopped_in(jobs, "kd", baselines=("kd",))
    command = [sys.executable, "-m", "tdmr", "rescue", str(job.path), "--no-package"]
    cache = ["--device", "cpu", "--cache", str(jobs.folder / "cache")]
    subprocess.run([*command, *cache], check=True, capture_output=True)
    said = lines(job)
    assert said[-1].event == "done"
    assert said[-1].result == trained.read(job.out).metrics
    assert sorted(path.name for path in job.out.iterdir()) == ["model.safetensors", "trained.json"]


def test_what_is_judged_by_stage_1_is_left_out_where_that_would_cost(
    jobs: Jobs, tmp_path: Path
) -> None:
    """Stored features that are gone aren't made again."""
    baselines = ("probe", "scratch", "simkd", "kd")
    job = stopped_in(jobs, "kd", baselines=baselines)
    metrics = rescued(job, tmp_path / "another")
    assert metrics["foundation"]["forwards"] == 18 * 3  # all of them the stopped job's
    assert metrics["partial"]["missing"] == ["probe", "simkd", "kd"]
    assert list(metrics["baselines"]) == ["scratch"]
    assert metrics["out_of_fold_accuracy"] is None
    assert metrics["cache"] == {"views_per_image": 3, "bytes": None, "reused": None}


def test_stage_1_in_closed_form_needs_no_checkpoint(jobs: Jobs, spec: JobSpec) -> None:
    reprogram = spec.options.reprogram.model_copy(update={"mode": "closed_form"})
    options = spec.options.model_copy(update={"reprogram": reprogram})
    job = stopped_in(jobs, "kd", baselines=("probe", "kd"), options=options)
    assert [path.name for path in job.checkpoint.iterdir()] == ["distil.safetensors"]
    assert list(rescued(job, jobs.folder / "cache")["baselines"]) == ["probe"]


def no_reprogram(job: JobDir) -> None:
    (job.checkpoint / "reprogram.safetensors").unlink()


def torn_reprogram(job: JobDir) -> None:
    (job.checkpoint / "reprogram.safetensors").write_bytes(b"torn")


@pytest.mark.parametrize("harm", [no_reprogram, torn_reprogram])
def test_some_of_the_files_are_enough(jobs: Jobs, harm: Callable[[JobDir], None]) -> None:
    job = stopped_in(jobs, "kd", baselines=("probe", "kd"))
    harm(job)
    metrics = rescued(job, jobs.folder / "cache")
    assert metrics["partial"]["missing"] == ["probe", "kd"]
    warned = [line.message or "" for line in lines(job) if line.event == "warning"]
    assert any("can't be read" in words for words in warned) is (harm is torn_reprogram)


def test_an_input_side_is_not_learnt_again(
    jobs: Jobs, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = spec.options.model_copy(update={"input": InputOptions(affine=True, steps=2)})
    job = stopped_in(jobs, "kd", baselines=("probe", "kd"), options=options)
    monkeypatch.setattr(task_module, "learn_input_side", None)
    metrics = rescued(job, jobs.folder / "cache")
    assert metrics["foundation"]["input_side"] is None
    assert metrics["partial"]["missing"] == ["probe", "kd"]


def test_before_stage_2_there_is_nothing(jobs: Jobs) -> None:
    job = stopped_in(jobs, "reprogram", 3)
    found = failure(job, jobs.folder / "cache")
    assert (found.code, found.user_error, found.retryable) == ("nothing_to_rescue", False, False)
    assert "stage 2 had not begun" in found.detail
    shutil.rmtree(job.checkpoint)
    assert failure(job, jobs.folder / "cache").code == "nothing_to_rescue"


def test_another_job_s_checkpoint_is_refused(jobs: Jobs, spec: JobSpec) -> None:
    job = stopped_in(jobs, "kd", baselines=("kd",))
    options = spec.options.model_copy(update={"seed": 1})
    jobs.make("stopped", baselines=("kd",), options=options)
    found = failure(job, jobs.folder / "cache")
    assert (found.code, found.stage) == ("checkpoint", "rescue")
    assert "another run" in found.detail


def test_a_rescue_that_is_stopped_begins_again(jobs: Jobs) -> None:
    job = stopped_in(jobs, "kd", baselines=("kd",))
    before = len(lines(job))

    def stopping() -> bool:
        return any(line.stage and line.stage.name == "evaluate" for line in lines(job)[before:])

    cache = jobs.folder / "cache"
    status = process.rescue_job(job.path, device="cpu", cache=cache, stopping=stopping)
    assert status == STOPPED_STATUS
    assert lines(job)[-1].event == "stopped"
    assert not job.out.exists()
    assert rescued(job, cache)["partial"]["step"] == STEPS


@pytest.fixture
def made(spec: JobSpec, shapes: Path, tmp_path: Path) -> Task:
    silent = Reporter(None, ["prepare"])
    return prepare(spec, shapes, ArrayStore(tmp_path / "cache"), CPU, silent)[0]


@pytest.mark.parametrize("method", ["distil", "simkd", "rd", "aft"])
@pytest.mark.parametrize("student", ["test_resnet", "test_vit"])
def test_a_method_that_ended_is_judged_as_it_was(
    made: Task, tmp_path: Path, method: str, student: str
) -> None:
    silent = Reporter(None, ["prepare"])
    task = replace(made, spec=made.spec.model_copy(update={"student": student}))
    teacher = teach(task, cache_views(task, ArrayStore(tmp_path / "cache"), silent), silent)
    kept = Checkpoints(tmp_path / "kept", owner=owner(task))
    whole = train_method(method, task, teacher, checkpoints=kept)
    saved = kept.find(method)
    assert saved is not None
    again = finished(method, task, saved, teacher)
    assert same(dict(again.student.state_dict()), dict(whole.student.state_dict()))
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        theirs, ours = (t.objective.logits(t.student(x)) for t in (whole, again))
    assert torch.equal(theirs, ours)
