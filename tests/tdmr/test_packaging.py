"""What was trained, and the bundle made of it: apart, again, and without the foundation."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm

from tdmr import bundle, process, trained
from tdmr.config import JobSpec
from tdmr.errors import TrainedResultError
from tdmr.jobdir import STOPPED_STATUS, JobDir, ProgressLine
from tests.shapes import draw_dataset
from tests.tdmr.jobs import Jobs

# With a number, asks itself to stop on its way.
ALONE = """
import os, signal, sys
pieces = int(sys.argv.pop(1))
from tdmr import cli, jobdir
step = jobdir.Reporter.step
def told(self, at, steps, losses=None):
    global pieces
    step(self, at, steps, losses)
    pieces -= 1
    if pieces == 0:
        os.kill(os.getpid(), signal.SIGTERM)
jobdir.Reporter.step = told
cli.app()
"""


@pytest.fixture(scope="module")
def jobs(spec: JobSpec, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    return Jobs(spec, shapes, tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="module")
def left(jobs: Jobs) -> JobDir:
    """A job that a process has trained and not packaged."""
    job = jobs.make("left", baselines=("kd",))
    command = [sys.executable, "-m", "tdmr", "run", str(job.path), "--no-package"]
    cache = ["--device", "cpu", "--cache", str(jobs.folder / "cache")]
    subprocess.run([*command, *cache], check=True, capture_output=True)
    return job


@pytest.fixture
def job(left: JobDir, shapes: Path, tmp_path: Path) -> JobDir:
    """A JOB_DIR with nothing but what was trained, and the dataset."""
    job = JobDir(tmp_path)
    shutil.copytree(left.out, job.trained)
    job.data.symlink_to(shapes)
    return job


def package(job: JobDir, stop_at: int = -1) -> int:
    command = [sys.executable, "-c", ALONE, str(stop_at), "package", str(job.path)]
    return subprocess.run(command, check=False, capture_output=True).returncode


def lines(job: JobDir) -> list[ProgressLine]:
    return [line for _, line in job.read()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_training_alone_ends_before_the_bundle(left: JobDir) -> None:
    assert set(contents(left.out)) == {"model.safetensors", "trained.json"}
    said = lines(left)
    assert said[-1].event == "done"
    names = list(dict.fromkeys(line.stage.name for line in said if line.stage))
    assert names == ["prepare", "cache", "reprogram", "distil", "kd", "evaluate"]
    assert {line.stage.count for line in said if line.stage} == {6}
    assert not left.checkpoint.exists()
    record = json.loads((left.out / "trained.json").read_text())
    assert list(record) == ["format", "student", "spec", "metrics"]
    assert record["metrics"] == said[-1].result
    assert record["metrics"]["partial"] is None


def test_the_same_bundle_as_in_one_go(job: JobDir, left: JobDir, jobs: Jobs) -> None:
    """But for the times and the machine's load; and what trained it isn't there."""
    whole = jobs.run("whole", baselines=("kd",)).job
    assert package(job) == 0
    ours, theirs = contents(job.out), contents(whole.out)
    assert ours.keys() == theirs.keys()
    timed = {"metrics.json", "exports.json", "manifest.json"}
    assert {k: v for k, v in ours.items() if k not in timed} == {
        k: v for k, v in theirs.items() if k not in timed
    }
    assert not whole.trained.exists()
    assert timm.create_model(f"local-dir:{job.out}", pretrained=True).num_classes == 3

    said = lines(job)
    metrics = json.loads(ours["metrics.json"])
    assert (said[-1].event, said[-1].result) == ("done", metrics)
    before = lines(left)[-1].result
    assert before is not None
    assert metrics == {**before, **{k: metrics[k] for k in ("evaluation", "exports")}}
    places = [line.stage for line in said if line.stage]
    assert {(place.name, place.index, place.count) for place in places} == {("package", 1, 1)}
    assert [place.progress for place in places][-1] == 1
    assert said[-2].step == said[-2].steps == 300  # weights, held-out images, formats

    assert package(job) == 0  # over what is there
    again = contents(job.out)
    assert {k: v for k, v in again.items() if k not in timed} == {
        k: v for k, v in ours.items() if k not in timed
    }


def test_a_stop_begins_again(job: JobDir) -> None:
    assert package(job, stop_at=1) == STOPPED_STATUS
    assert lines(job)[-1].event == "stopped"
    assert not job.out.exists()
    assert package(job) == 0


def test_a_kill_leaves_nothing_in_the_way(job: JobDir) -> None:
    job.out.mkdir()
    (job.out / "half.json").write_text("what a process that was killed had begun")
    assert process.package_job(job.path, cache=job.path / "cache") == 0
    assert "half.json" not in contents(job.out)
    assert "half.json" not in (job.out / "manifest.json").read_text()


def changed(**changes: Any) -> Callable[[Path], None]:
    """Put other values into trained.json; None removes."""

    def harm(folder: Path) -> None:
        path = folder / "trained.json"
        record = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in record.items() if v is not None}))

    return harm


def flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "trained.json can't be read"),
        (lambda folder: (folder / "trained.json").unlink(), "trained.json can't be read"),
        (lambda folder: (folder / "trained.json").write_text("{"), "trained.json is damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors can't be"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "1 bytes instead of"),
        (flip, "SHA-256"),
        (changed(student=None), "trained.student: Field required"),
        (changed(format=2), "trained.format"),
        (changed(metrics={}), "metrics aren't whole"),
        (changed(metrics={"dataset": 1, "student": 2, "foundation": 3}), "metrics aren't whole"),
    ],
)
def test_damage_is_typed(job: JobDir, harm: Callable[[Path], None], words: str) -> None:
    harm(job.trained)
    assert process.package_job(job.path, cache=job.path / "cache") == 1
    failure = lines(job)[-1].failure
    assert failure is not None
    assert (failure.code, failure.stage) == ("trained_result", "package")
    assert (failure.user_error, failure.retryable) == (False, False)
    assert words in failure.detail
    assert failure.suggestion
    assert not job.out.exists()


def test_another_dataset_is_refused(job: JobDir) -> None:
    """Its figures would be of images that the student was trained on, or of other classes."""
    job.data.unlink()
    draw_dataset(job.data, {"train": 6, "test": 3})
    assert process.package_job(job.path, cache=job.path / "cache") == 1
    failure = lines(job)[-1].failure
    assert failure is not None
    assert (failure.code, failure.stage) == ("trained_result", "package")
    assert "The dataset isn't the one" in failure.detail
    assert not job.out.exists()
    assert job.trained.exists()


def test_by_hand(left: JobDir, shapes: Path, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    where = {"data": shapes, "cache": tmp_path / "cache"}
    metrics = bundle.package(
        left.out, tmp_path / "bundle", **where, on_step=lambda *at: said.append(at)
    )
    assert metrics.items() >= trained.read(left.out).metrics.items()
    assert said == sorted(said)
    assert (said[0], said[-1]) == ((0, 300), (300, 300))
    with pytest.raises(TrainedResultError):
        bundle.package(tmp_path / "nowhere", tmp_path / "other", **where)
