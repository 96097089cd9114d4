"""A job on several devices: real processes on the CPU, started, stopped and struck."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

import tdmr
from tdmr import process, several
from tdmr.config import DistillOptions, JobSpec
from tdmr.errors import Failure, OptionsError
from tdmr.jobdir import STOPPED_STATUS, JobDir, ProgressLine
from tests.support import wait_until
from tests.tdmr.jobs import Jobs

PATIENCE = 300.0
LOOPBACK = "0100007F"  # of /proc/net
APART = 1e-2  # of the weights' own size: AdamW makes much of rounding (test_distributed)


@dataclass
class Run:
    """A JOB_DIR, and the command on it."""

    job: JobDir
    cache: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def temporary(self) -> Path:
        return self.job.path.with_suffix(".tmp")

    def start(self) -> subprocess.Popen[bytes]:
        self.temporary.mkdir(exist_ok=True)
        command = ["run", str(self.job.path), "--device", "cpu", "--checkpoint-seconds", "0"]
        with self.job.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tdmr", *command, "--cache", str(self.cache)],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(self.temporary)},
            )
        return self.process

    def ended(self) -> int:
        """The status of the first process, with nothing else left."""
        assert self.process is not None
        status, leader = self.process.wait(PATIENCE), self.process.pid
        wait_until(lambda: not group(leader))
        assert not self.job.processes.exists()
        assert list(self.temporary.glob("torchelastic*")) == []
        return status

    def trains(self, behind: int) -> bool:
        """Whether it trains, and has got beyond this step."""
        line = self.job.last()
        at = line is not None and line.stage is not None and line.stage.name == "distil"
        return at and line is not None and (line.step or 0) > behind

    def last(self) -> ProgressLine:
        line = self.job.last()
        assert line is not None
        return line


def group(leader: int) -> list[int]:
    """The processes of a group that run, but for its leader."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX" and int(fields[2]) == leader:
            found.append(int(path.parent.name))
    return sorted(set(found) - {leader})


def trainers(leader: int) -> list[int]:
    """Those of them that train."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in group(leader)}
    return [pid for pid, command in commands.items() if b"spawn_main" in command]


def listening(pids: list[int]) -> set[str]:
    """The addresses that processes listen on, as /proc/net has them."""
    sockets = {link.readlink().name for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found


@pytest.fixture
def run(spec: JobSpec, shapes: Path, tmp_path: Path) -> Iterator[Callable[[str, int], Run]]:
    training = spec.options.training.model_copy(update={"steps": 60, "batch_size": 8})
    made: list[Run] = []

    def make(name: str, devices: int) -> Run:
        options = spec.options.model_copy(update={"training": training, "devices": devices})
        # Without BatchNorm, which sees each process's own share on a CPU.
        changes = {"student": "test_vit", "options": options}
        jobs = Jobs(spec.model_copy(update=changes), shapes, tmp_path)
        made.append(Run(jobs.make(name), tmp_path / "cache"))
        return made[-1]

    yield make
    for each in made:
        if each.process is not None and each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
            each.process.wait()


def test_two_processes_train_the_student_of_one_whatever_strikes_them(
    run: Callable[[str, int], Run],
) -> None:
    alone, two = run("alone", 1), run("two", 2)
    assert process.run_job(alone.job.path, device="cpu", cache=alone.cache) == 0

    two.job.processes.mkdir()
    (two.job.processes / "stop").touch()  # left by a run that was killed
    first = two.start()
    wait_until(lambda: two.trains(3), first, PATIENCE)
    assert listening([first.pid, *group(first.pid)]) == {LOOPBACK}
    other = trainers(first.pid)[-1]
    os.kill(other, signal.SIGKILL)
    assert two.ended() == 1
    failure = two.last().failure
    assert failure is not None
    assert (failure.code, failure.stage, failure.retryable) == ("process_died", "distil", True)
    assert "of 2 was killed by SIGKILL" in failure.detail
    assert not two.job.out.exists()

    second = two.start()
    wait_until(lambda: two.trains(10), second, PATIENCE)
    second.send_signal(signal.SIGTERM)  # to it alone
    assert two.ended() == STOPPED_STATUS
    stopped = two.last()
    assert (stopped.event, stopped.stage and stopped.stage.name) == ("stopped", "distil")

    third = two.start()
    assert two.ended() == 0, two.job.log.read_text()
    assert third.returncode == 0
    assert two.last().event == "done"
    steps = [line.step for _, line in two.job.read() if line.event == "checkpoint"]
    assert steps.count(60) <= 1
    mine = load_file(two.job.out / "model.safetensors")
    wanted = load_file(alone.job.out / "model.safetensors")
    apart = sum(float(np.square(mine[name] - wanted[name]).sum()) for name in wanted)
    size = sum(float(np.square(wanted[name]).sum()) for name in wanted)
    assert (apart / size) ** 0.5 < APART


LACKS = Failure(code="out_of_memory", user_error=True, detail="The second one's GPU is small.")
BEFORE = ProgressLine(event="failed", failure=LACKS.model_copy(update={"code": "an earlier run's"}))
STOPPED = ProgressLine(event="stopped", message="stopped at step 7")


@pytest.mark.parametrize(
    ("first", "second", "asked", "status", "event", "code"),
    [
        (ProgressLine(event="failed", failure=LACKS), None, False, 1, "failed", "out_of_memory"),
        (None, ProgressLine(event="failed", failure=LACKS), False, 1, "failed", "out_of_memory"),
        (None, None, False, 1, "failed", "process_died"),
        # It was told to by torch, since the other has failed: nobody has asked the run to stop.
        (STOPPED, ProgressLine(event="failed", failure=LACKS), False, 1, "failed", "out_of_memory"),
        (STOPPED, None, True, STOPPED_STATUS, "stopped", None),
        (None, None, True, STOPPED_STATUS, "stopped", None),
    ],
)
def test_what_a_run_has_ended_of(
    tmp_path: Path,
    first: ProgressLine | None,
    second: ProgressLine | None,
    asked: bool,
    status: int,
    event: str,
    code: str | None,
) -> None:
    job = JobDir(tmp_path)
    job.append(BEFORE)
    said = job.progress.stat().st_size
    for number, line in enumerate((first, second)):
        if line is not None:
            JobDir(tmp_path, number).append(line)
    error = ChildFailedError("run", {1: ProcessFailure(1, 77, -9, str(tmp_path / "none"))})
    assert several._ended(job, said, 2, error, lambda: asked) == status
    last = job.last(said)
    assert last is not None
    assert (last.event, last.failure and last.failure.code) == (event, code)


def test_a_batch_that_cant_be_shared_is_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of devices"):
        DistillOptions.model_validate({"devices": 3, "training": {"batch_size": 32}})


def test_one_process_doesnt_claim_to_be_two(spec: JobSpec, shapes: Path, tmp_path: Path) -> None:
    options = spec.options.model_copy(update={"devices": 2})
    with pytest.raises(OptionsError, match="number of processes is 1"):
        tdmr.distill(
            shapes,
            foundation=spec.foundation,
            student=spec.student,
            out=tmp_path / "out",
            options=options,
            device="cpu",
        )
    assert not (tmp_path / "out").exists()
