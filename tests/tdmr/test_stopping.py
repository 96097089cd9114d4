"""The process that a worker starts, asked to stop, killed, and started again on its JOB_DIR."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors import safe_open

from tdmr import checkpoint, process
from tdmr.config import JobSpec
from tdmr.jobdir import STOPPED_STATUS, JobDir, ProgressLine, Reporter
from tests.tdmr.jobs import Jobs

# Sends itself a signal: when its stage has come to a step, or before a checkpoint is renamed.
STRUCK = """
import os, pathlib, signal, sys
number, stage, moment, nth = signal.Signals[sys.argv[1]], sys.argv[2], sys.argv[3], int(sys.argv[4])
del sys.argv[1:5]
from tdmr import cli, jobdir
step, replace, written = jobdir.Reporter.step, pathlib.Path.replace, []
def told(self, at, steps, losses=None):
    step(self, at, steps, losses)
    if moment == "step" and self.stage == stage and at >= nth:
        os.kill(os.getpid(), number)
def renamed(self, target):
    written.append(self.name)
    if moment == "write" and written.count(f".{stage}.safetensors.part") == nth:
        os.kill(os.getpid(), number)
    return replace(self, target)
jobdir.Reporter.step, pathlib.Path.replace = told, renamed
cli.app()
"""


@dataclass(frozen=True)
class Job:
    """A JOB_DIR, and processes on it."""

    path: JobDir
    cache: Path

    def start(self, *before: str) -> subprocess.Popen[bytes]:
        run = ["run", str(self.path.path), "--device", "cpu", "--checkpoint-seconds", "0"]
        with self.path.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *(before or ("-m", "tdmr")), *run, "--cache", str(self.cache)],
                stdout=log,
                stderr=log,
            )

    def struck(self, number: str, stage: str, moment: str, nth: int) -> int:
        """The status of a process that is sent a signal by itself."""
        return self.start("-c", STRUCK, number, stage, moment, str(nth)).wait()

    def last(self) -> ProgressLine:
        return [line for _, line in self.path.read()][-1]

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.path.checkpoint.iterdir())


@pytest.fixture
def work(spec: JobSpec, shapes: Path, tmp_path: Path) -> Callable[[str], Job]:
    training = spec.options.training.model_copy(update={"steps": 24})
    options = spec.options.model_copy(update={"training": training})
    jobs = Jobs(spec.model_copy(update={"options": options}), shapes, tmp_path)
    return lambda name: Job(jobs.make(name), tmp_path / "cache")


def weights(job: JobDir) -> bytes:
    return (job.out / "model.safetensors").read_bytes()


def test_a_process_that_is_struck_again_and_again(work: Callable[[str], Job]) -> None:
    whole, job = work("whole"), work("job")
    assert process.run_job(whole.path.path, device="cpu", cache=whole.cache) == 0
    assert not whole.path.checkpoint.exists()

    first = job.start()
    while not (job.path.progress.exists() and job.path.progress.read_bytes()):
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    assert first.wait() == STOPPED_STATUS
    assert job.last().event == "stopped"

    assert job.struck("SIGTERM", "distil", "step", 11) == STOPPED_STATUS
    line = job.last()
    assert (line.event, line.step) == ("stopped", 11)
    announced = [line for _, line in job.path.read()][-2]
    assert (announced.event, announced.step) == ("checkpoint", 11)
    assert announced.checkpoint == "distil.safetensors"
    assert line.stage is not None
    assert line.stage.name == "distil"
    assert job.kept() == ["distil.safetensors", "reprogram.safetensors"]

    before = (job.path.checkpoint / "distil.safetensors").read_bytes()
    assert job.struck("SIGKILL", "distil", "write", 4) == -signal.SIGKILL
    assert ".distil.safetensors.part" in job.kept()
    assert (job.path.checkpoint / "distil.safetensors").read_bytes() != before

    assert job.start().wait() == 0
    assert weights(job.path) == weights(whole.path)
    assert job.last().event == "done"
    assert not job.path.checkpoint.exists()


def test_every_durable_checkpoint_is_announced(
    work: Callable[[str], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = work("job")
    announce, on_disk = Reporter.checkpoint, []

    def look(self: Reporter, stage: str, name: str, step: int) -> None:
        with safe_open(job.path.checkpoint / name, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
        on_disk.append((name, facts["step"], facts.get("done", False)))
        announce(self, stage, name, step)

    monkeypatch.setattr(Reporter, "checkpoint", look)

    def run(most: int) -> int:
        return process.run_job(
            job.path.path, device="cpu", cache=job.cache, checkpoint_seconds=0,
            stopping=lambda: len(on_disk) >= most,
        )  # fmt: skip

    assert run(26) == STOPPED_STATUS
    assert len(on_disk) == 27
    assert run(100) == 0  # what is done already isn't announced again
    assert on_disk == [
        *(("reprogram.safetensors", step, step == 20) for step in range(1, 21)),
        *(("distil.safetensors", step, step == 24) for step in range(1, 25)),
    ]

    lines = [line for _, line in job.path.read() if line.event == "checkpoint"]
    assert [(line.checkpoint, line.step) for line in lines] == [place[:2] for place in on_disk]
    for line in lines:
        assert line.stage is not None
        assert f"{line.stage.name}.safetensors" == line.checkpoint
        assert line.steps in (None, {"reprogram": 20, "distil": 24}[line.stage.name])
    assert lines[-1].steps == 24


def test_a_damaged_checkpoint_is_the_last_line(work: Callable[[str], Job]) -> None:
    job = work("job")
    job.path.checkpoint.mkdir()
    (job.path.checkpoint / "reprogram.safetensors").write_bytes(b"torn")
    assert process.run_job(job.path.path, device="cpu", cache=job.cache) == 1
    failure = job.last().failure
    assert failure is not None
    assert (failure.code, failure.stage) == ("checkpoint", "reprogram")
    assert failure.suggestion == checkpoint.BEGIN_AGAIN


def test_a_stop_between_two_stages(work: Callable[[str], Job]) -> None:
    """Where no step asks: nothing is lost, and the bundle isn't begun."""
    job = work("job")

    def stopping() -> bool:
        return any(line.stage and line.stage.name == "evaluate" for _, line in job.path.read())

    status = process.run_job(job.path.path, device="cpu", cache=job.cache, stopping=stopping)
    assert status == STOPPED_STATUS
    line = job.last()
    assert line.stage is not None
    assert (line.event, line.stage.name) == ("stopped", "evaluate")
    assert not job.path.out.exists()
