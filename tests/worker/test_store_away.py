"""The object store is away while a job is prepared, saved or done: nothing of it is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.db import Database
from app.settings import Settings
from app.storage import open_storage
from tdmr.jobdir import JobDir
from tests.stores import BUCKET, store
from tests.support import free_port, wait_until
from tests.worker import scenes
from tests.worker.standin_worker import standin
from tests.worker.test_pipeline import Bench
from tests.worker.test_survival import settled, step, student
from worker.launch import Child, alive


class Passing:
    """A store that goes and comes back, with its files and at its address."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._running = ExitStack()
        self.come_back()

    def come_back(self) -> None:
        self.place = self._running.enter_context(store("rclone", self._folder, port=self._port))

    def go(self) -> None:
        self._running.close()

    def files(self, prefix: str) -> list[str]:
        found = scenes.files_under(self._folder / "files" / BUCKET)
        return [name for name in found if f"/{prefix}/" in name]


@pytest.fixture
def passing(tmp_path: Path) -> Iterator[Passing]:
    (tmp_path / "store").mkdir()
    passing = Passing(tmp_path / "store")
    yield passing
    passing.go()


@pytest.fixture
def bench(database: Database, settings: Settings, passing: Passing) -> Iterator[Bench]:
    patience = {"storage_retry_seconds": 0.3, "storage_timeout_seconds": 600.0}
    more = passing.place.settings(**patience)
    settings = Settings(**{**settings.model_dump(), **more})
    bench = Bench(database, open_storage(settings), settings)
    yield bench
    bench.stop = True
    bench.pool.shutdown()


@pytest.fixture
def said() -> Iterator[Callable[[str], int]]:
    """`said(event)`: how often the worker has logged it."""
    with capture_logs() as logged:
        yield lambda event: sum(each["event"] == event for each in logged)


def went_before(passing: Passing) -> Callable[[list[str], JobDir], Child]:
    """Starts a job's process once the store has gone."""

    def launch(command: list[str], job: JobDir) -> Child:
        passing.go()
        return standin(command, job)

    return launch


def test_a_job_that_cant_begin_is_put_off_without_blame(bench: Bench, passing: Passing) -> None:
    job_id = bench.submit("done")
    passing.go()
    assert bench.run() is True
    job = bench.job(job_id)
    assert (job.state, job.strikes, job.failure) == ("queued", 0, None)
    last = scenes.events(bench.database, job_id)[-1]
    assert (last.type, last.data["reason"]) == ("requeued", "storage_unavailable")
    assert last.data["delay"] > 0
    passing.come_back()
    scenes.make_due(bench.database, job_id)
    bench.finish()
    assert bench.job(job_id).state == "succeeded"


def test_a_checkpoint_that_cant_be_kept_is_followed_by_one_that_is(
    bench: Bench, passing: Passing, said: Callable[[str], int]
) -> None:
    job_id = bench.submit(["save", "done"])
    bench.pool.submit(bench.run, went_before(passing))
    wait_until(lambda: said("checkpoint_not_kept"))
    assert bench.job(job_id).state == "running"
    passing.come_back()
    bench.stop = True
    assert settled(bench, job_id, "queued").strikes == 0
    assert step(bench, job_id) == 11
    assert [Path(name).name for name in passing.files("checkpoints")] == ["1-2-distil.safetensors"]
    bench.stop = False
    bench.finish()
    found = student(bench, job_id)
    assert found is not None
    assert found.metrics["resumed_from"] == 11


def test_a_result_waits_for_the_store(
    bench: Bench, passing: Passing, said: Callable[[str], int]
) -> None:
    job_id = bench.submit("done")
    bench.pool.submit(bench.run, went_before(passing))
    wait_until(lambda: said("storage_unreachable"))
    assert bench.job(job_id).state == "running"
    passing.come_back()
    settled(bench, job_id, "packaging")
    bench.finish()
    assert bench.job(job_id).state == "succeeded"
    assert bench.job(job_id).attempt == 1


def test_a_result_that_waits_is_given_up_when_the_job_is_cancelled(
    bench: Bench, passing: Passing, said: Callable[[str], int]
) -> None:
    job_id = bench.submit("done")
    bench.pool.submit(bench.run, went_before(passing))
    wait_until(lambda: said("storage_unreachable"))
    scenes.request_cancel(bench.database, job_id)
    settled(bench, job_id, "cancelled")


def test_a_store_that_hangs_keeps_nobody_from_hearing_a_cancel(
    bench: Bench, passing: Passing
) -> None:
    job_id, children = bench.submit("save"), []

    def launch(command: list[str], job: JobDir) -> Child:
        passing.place.process.send_signal(signal.SIGSTOP)
        children.append(standin(command, job))
        return children[0]

    bench.pool.submit(bench.run, launch)
    try:
        told = bench.settings.work_dir / "jobs" / f"{job_id}-1" / "progress.jsonl"
        wait_until(lambda: told.exists() and '"checkpoint"' in told.read_text())
        scenes.request_cancel(bench.database, job_id)
        wait_until(lambda: not alive(children[0].pid))
        assert bench.job(job_id).state == "running"  # its checkpoint is still on its way
    finally:
        passing.place.process.send_signal(signal.SIGCONT)
    settled(bench, job_id, "cancelled")
