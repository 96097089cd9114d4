"""Full disks, real ones where mounting is allowed: a typed error, and nothing half-written."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm

from tdmr import api, bundle, trained
from tdmr.config import JobSpec
from tdmr.errors import DiskFullError, Failure, room_for
from tdmr.jobdir import JobDir, ProgressLine, Reporter
from tdmr.store import Array, ArrayStore
from tests.tdmr.jobs import Jobs


@pytest.fixture
def jobs(spec: JobSpec, shapes: Path, tmp_path: Path) -> Jobs:
    return Jobs(spec, shapes, tmp_path)


class SmallDisk:
    """A folder whose disk can be filled: a real disk where mounting is allowed, or its answers."""

    def __init__(self, path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        path.mkdir()
        self.path = path
        self._patch = monkeypatch
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
            self.real = done.returncode == 0
        except FileNotFoundError:
            self.real = False

    def close(self) -> None:
        if self.real:
            subprocess.run(["umount", "-l", str(self.path)], check=True)

    def fill(self, leave: int) -> None:
        """Leave no more than `leave` bytes free."""
        if not self.real:
            self._pretend(leave)
            return
        with (self.path / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self.path).free - leave)

    def empty(self) -> None:
        if self.real:
            (self.path / "ballast").unlink()
        else:
            self._patch.undo()

    def _pretend(self, leave: int) -> None:
        def full(size: int) -> None:
            if size > leave:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def sync(fd: int) -> None:
            full(os.fstat(fd).st_size)

        def then_full(save: Callable[..., None]) -> Callable[..., None]:
            def write(*arguments: Any, **named: Any) -> None:
                save(*arguments, **named)
                full(1 << 30)

            return write

        usage = shutil.disk_usage(self.path)._replace(free=leave)
        self._patch.setattr(shutil, "disk_usage", lambda path: usage)
        self._patch.setattr(os, "posix_fallocate", lambda fd, offset, size: full(size))
        self._patch.setattr(os, "fsync", sync)
        self._patch.setattr(timm.models, "save_for_hf", then_full(timm.models.save_for_hf))
        self._patch.setattr(trained, "copy_weights", then_full(trained.copy_weights))


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "small", 24 << 20, monkeypatch)
    yield disk
    disk.close()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "ballast")


def no_room(failure: Failure, folder: Path, what: str, stage: str) -> None:
    assert (failure.code, failure.stage, failure.retryable) == ("disk_full", stage, True)
    assert not failure.user_error
    assert f"no room in {str(folder)!r} for {what}" in failure.detail
    assert "bytes are free" in failure.detail
    assert failure.suggestion is not None
    assert failure.suggestion.startswith("Free some space there")


def test_no_room_for_pixels(jobs: Jobs, small_disk: SmallDisk) -> None:
    small_disk.fill(leave=16_384)
    failure = jobs.run(cache=small_disk.path).failure
    no_room(failure, small_disk.path, "pixels", "prepare")
    assert "bytes are needed" in failure.detail
    assert "image_size" in (failure.suggestion or "")
    assert left(small_disk.path) == []


def test_no_room_for_features(jobs: Jobs, small_disk: SmallDisk) -> None:
    assert jobs.run(cache=small_disk.path).status == 0
    pixels = [p.name for p in small_disk.path.iterdir() if "pixels" in _what(p)]
    for entry in small_disk.path.iterdir():
        if entry.name not in pixels:
            shutil.rmtree(entry)
    small_disk.fill(leave=16_384)
    failure = jobs.run(cache=small_disk.path).failure
    no_room(failure, small_disk.path, "features", "cache")
    assert "bytes are needed" in failure.detail
    assert "views.count" in (failure.suggestion or "")
    assert left(small_disk.path) == sorted(pixels)
    small_disk.empty()
    assert jobs.run(cache=small_disk.path).status == 0


def _what(entry: Path) -> str:
    return (entry / "ingredients.json").read_text()


def test_no_room_for_a_checkpoint(jobs: Jobs, small_disk: SmallDisk, tmp_path: Path) -> None:
    """Stage 1's fits, and the first of stage 2 doesn't."""
    job = jobs.make("small/job")
    small_disk.fill(leave=1 << 20)
    failure = jobs.run("small/job").failure
    no_room(failure, job.checkpoint, "a checkpoint", "distil")
    assert "bytes are needed" in failure.detail
    assert left(job.checkpoint) == ["reprogram.safetensors"]
    small_disk.empty()
    ended = jobs.run("small/job")
    assert ended.status == 0
    assert not job.checkpoint.exists()


@pytest.mark.parametrize(
    ("stage", "place", "name"),
    [("evaluate", trained, "export"), ("bundle", bundle, "model_card")],
)
def test_no_room_for_the_bundle(
    jobs: Jobs,
    small_disk: SmallDisk,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    place: Any,
    name: str,
) -> None:
    """Neither for what was trained nor, in the second case, for another copy of it."""
    job = JobDir(small_disk.path / "job")
    go_on = getattr(place, name)

    def fill_first(*arguments: Any) -> Any:
        small_disk.fill(leave=1 << 20)
        return go_on(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, fill_first)
        failure = jobs.run("small/job").failure
    no_room(failure, job.path, "the result", stage)
    assert not job.out.exists()
    assert not job.trained.exists()
    assert left(job.checkpoint) == ["distil.safetensors", "reprogram.safetensors"]
    small_disk.empty()
    assert jobs.run("small/job").status == 0


def test_no_room_for_a_local_bundle(
    spec: JobSpec, shapes: Path, small_disk: SmallDisk, tmp_path: Path
) -> None:
    small_disk.fill(leave=1 << 20)
    with pytest.raises(DiskFullError, match="for the result"):
        api.distill(
            shapes,
            foundation=spec.foundation,
            student=spec.student,
            out=small_disk.path / "out",
            options=spec.options,
            baselines=[],
            cache=tmp_path / "cache",
            device="cpu",
        )
    assert left(small_disk.path) == []


def test_the_whole_file_is_reserved(tmp_path: Path) -> None:
    """A hole in it would be found under the memory map, as a bus error."""

    def fill(array: Array) -> None:
        (staged,) = tmp_path.glob(".*/array.npy")
        assert staged.stat().st_blocks * 512 >= array.nbytes

    ArrayStore(tmp_path).make({"a": 1}, (1 << 20,), "uint8", fill)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_filesystem_that_cannot_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    made = ArrayStore(tmp_path).make({"a": 1}, (4,), "uint8", lambda array: array.fill(7))
    assert made.tolist() == [7] * 4


def test_a_disk_that_somebody_else_fills_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was room when it was looked at, and none when it was taken."""

    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskFullError, match="1,000 bytes are needed"):
        ArrayStore(tmp_path).make({}, (1000,), "uint8", lambda array: pytest.fail("no room"))
    assert left(tmp_path) == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    """Once nothing has been written to it for a day; others' folders are left alone."""
    for name in (f".{1:032x}", f".{2:032x}", ".git"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "array.npy").write_bytes(b"half of one")
        os.utime(tmp_path / name / "array.npy", (0, 0))
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / f".{2:032x}" / "array.npy").write_bytes(b"a little more")
    ArrayStore(tmp_path).make({}, (1,), "uint8", lambda array: array.fill(1))
    assert left(tmp_path) == [f".{2:032x}", ".git", ArrayStore.key({})]


def test_any_other_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), room_for("x", tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_a_line_of_progress_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    job = JobDir(tmp_path)
    job.progress.symlink_to("/dev/full")
    reporter = Reporter(job, ["a"])
    reporter.start("a")
    reporter.step(1, 1)
    reporter.checkpoint("a", "a.safetensors", 1)
    with pytest.raises(OSError, match="No space left"):
        reporter.done({})


def test_a_torn_line_hides_none_behind_it(tmp_path: Path) -> None:
    job = JobDir(tmp_path)
    job.append(ProgressLine(event="progress"))
    with job.progress.open("ab") as file:
        file.write(b'{"event": "prog')
    job.append(ProgressLine(event="done"))
    job.append(ProgressLine(event="failed"))
    assert [line.event for _, line in job.read()] == ["progress", "done", "failed"]
