"""A training that doesn't fit into memory says which batch does; the limit is the kernel's."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tdmr import api, cache, methods, reprogram, training
from tdmr.config import DistillOptions, JobSpec
from tdmr.distributed import World
from tdmr.errors import OutOfMemoryError, is_out_of_memory
from tdmr.jobdir import Reporter
from tdmr.memory import largest_fitting
from tdmr.methods import train_method
from tdmr.models import Foundation
from tdmr.reprogram import Teacher
from tdmr.store import ArrayStore
from tdmr.task import Task, cache_views, prepare, teach
from tests.tdmr.jobs import Ended, Jobs

# Lets itself have so many bytes more while a stage lasts. The second process gets as much as the
# first one had: it starts with less, as it finds the cache filled.
LIMITED = """
import pathlib, resource, sys
stage, limit, room = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
del sys.argv[1:4]
from tdmr import cli, jobdir
start = jobdir.Reporter.start
def begin(self, at):
    start(self, at)
    most = resource.RLIM_INFINITY
    if at == stage:
        status = pathlib.Path("/proc/self/status").read_text()
        if not limit.exists():
            limit.write_text(str(int(status.split("VmData:")[1].split()[0]) * 1024 + room))
        most = int(limit.read_text())
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))
jobdir.Reporter.start = begin
cli.app()
"""
# 64 images of 64 pixels fit into it with their activations, and 256 by far don't.
ROOM = 100 << 20


@pytest.fixture
def jobs(spec: JobSpec, shapes: Path, tmp_path: Path) -> Jobs:
    return Jobs(spec, shapes, tmp_path)


def with_batch(options: DistillOptions, batch_size: int, **changes: Any) -> DistillOptions:
    training = options.training.model_copy(update={"batch_size": batch_size, "steps": 3})
    return options.model_copy(update={"training": training, **changes})


def run_limited(jobs: Jobs, name: str, stage: str, **changes: Any) -> Ended:
    job = jobs.make(name, **changes)
    limit = jobs.folder / "limit"
    command = [sys.executable, "-c", LIMITED, stage, str(limit), str(ROOM), "run", str(job.path)]
    done = subprocess.run(
        [*command, "--device", "cpu", "--cache", str(jobs.folder / "cache")],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return Ended(job, done.returncode, [line for _, line in job.read()])


@pytest.mark.skipif(sys.platform != "linux", reason="others don't limit a process's data")
def test_the_batch_that_is_named_fits(jobs: Jobs, spec: JobSpec) -> None:
    options = with_batch(spec.options, 256, image_size=64)
    failure = run_limited(jobs, "first", "distil", student="test_vit", options=options).failure
    assert (failure.code, failure.stage, failure.user_error) == ("out_of_memory", "distil", True)
    assert failure.change is not None
    fits = failure.change["options"]["training"]["batch_size"]
    assert failure.change == {"options": {"training": {"batch_size": fits}}}
    assert fits in (128, 64, 32, 16, 8)
    assert failure.suggestion is not None
    assert f"from 256 to {fits}" in failure.suggestion

    options = with_batch(options, fits)
    assert run_limited(jobs, "second", "distil", student="test_vit", options=options).status == 0


def too_much_for(most: int, monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Any]]:
    """A device that has room for steps of `most` images; what held the ones that didn't fit."""
    held: list[weakref.ref[Any]] = []
    step = training._Run.step

    def limited(self: Any, batch: Any, number: int) -> Any:
        if len(batch.labels) > most:
            held.append(weakref.ref(self))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return step(self, batch, number)

    monkeypatch.setattr(training._Run, "step", limited)
    return held


@dataclass(frozen=True)
class Made:
    """A task in batches of 32, and what stage 1 made of it."""

    task: Task
    teacher: Teacher


@pytest.fixture
def made(spec: JobSpec, shapes: Path, tmp_path: Path) -> Made:
    silent, store = Reporter(None, ["prepare"]), ArrayStore(tmp_path)
    spec = spec.model_copy(update={"options": with_batch(spec.options, 32)})
    task, _ = prepare(spec, shapes, store, torch.device("cpu"), silent)
    return Made(task, teach(task, cache_views(task, store, silent), silent))


@pytest.mark.parametrize("method", ["distil", "scratch", "kd", "kd_online", "simkd", "rd"])
def test_every_method_says_it(made: Made, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    held = too_much_for(9, monkeypatch)
    with pytest.raises(OutOfMemoryError, match="from 32 to 8, which fits") as caught:
        train_method(method, made.task, made.teacher)
    assert caught.value.stage == method
    assert caught.value.change == {"options": {"training": {"batch_size": 8}}}
    assert len(held) == 2  # 32 images, and 16 behind the 8 that fit
    gc.collect()
    assert [ref() for ref in held] == [None, None]


def test_the_failed_step_is_let_go_before_another_is_tried(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = too_much_for(9, monkeypatch)
    rehearse = methods.rehearse

    def look_first(*given: Any, **named: Any) -> None:
        assert held[0]() is None
        rehearse(*given, **named)

    monkeypatch.setattr(methods, "rehearse", look_first)
    with pytest.raises(OutOfMemoryError, match="which fits"):
        train_method("kd", made.task, made.teacher)


def test_where_no_batch_fits(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    too_much_for(1, monkeypatch)
    with pytest.raises(OutOfMemoryError, match=r"No smaller batch fits.*image_size.*student") as e:
        train_method("kd", made.task, made.teacher)
    assert e.value.change is None


def test_recalibration_has_to_fit_as_well(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(training, "recalibrate", too_much)
    with pytest.raises(OutOfMemoryError, match="No smaller batch fits"):
        train_method("kd", made.task, made.teacher)


def test_several_processes_try_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ran out of memory would wait for the others for ever."""
    held = too_much_for(9, monkeypatch)
    monkeypatch.setattr(World, "current", lambda: World(0, 2))
    monkeypatch.setattr(World, "barrier", lambda self: None)
    with pytest.raises(OutOfMemoryError, match="Halve"):
        train_method("scratch", made.task, None)
    assert len(held) == 1


def test_another_error_of_a_try_is_not_hidden(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    too_much_for(9, monkeypatch)

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(methods, "rehearse", broken)
    with pytest.raises(ZeroDivisionError):
        train_method("kd", made.task, made.teacher)


@pytest.mark.parametrize(
    ("batch_size", "most", "tried", "fits"),
    [
        (256, 40, [3, 5, 9, 18, 36, 72], 32),
        (256, 35, [3, 5, 9, 18, 36], 16),  # 32 would just fit: nothing to rely on
        (100, 200, [4, 7, 13, 28, 56], 50),
        (3, 9, [], None),
    ],
)
def test_which_sizes_are_tried(
    batch_size: int, most: int, tried: list[int], fits: int | None
) -> None:
    seen = []

    def rehearse(size: int) -> None:
        seen.append(size)
        if size > most:
            raise MemoryError

    assert largest_fitting(batch_size, rehearse) == fits
    assert seen == tried


@pytest.mark.parametrize(
    ("stage", "place", "name", "words"),
    [
        ("prepare", Foundation, "probe_widths", "smaller foundation"),
        ("cache", cache.ViewCache, "features", "foundation_size"),
        ("reprogram", reprogram, "_estimate_statistics", "options.reprogram.taps"),
        ("evaluate", methods.Trained, "evaluate", "image_size"),
    ],
)
def test_other_stages_give_advice_of_their_own(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, stage: str, place: Any, name: str, words: str
) -> None:
    def too_much(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(place, name, too_much)
    ended = jobs.run()
    assert (ended.failure.code, ended.failure.stage) == ("out_of_memory", stage)
    assert ended.failure.change is None
    assert words in (ended.failure.suggestion or "")
    assert not ended.job.out.exists()


def test_a_local_call_raises_it(
    spec: JobSpec, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_much_for(9, monkeypatch)
    with pytest.raises(OutOfMemoryError, match="to 6, which fits"):
        api.distill(
            shapes, foundation=spec.foundation, student=spec.student, options=spec.options,
            out=tmp_path / "out", device="cpu",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a primitive descriptor for a convolution"), False),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_a_lack_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
