"""Real worker processes, ended in every way; their jobs' processes are stand-ins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from app import migrate, outbox
from app.db import Database
from app.models import Dataset
from app.settings import Settings
from app.storage import LocalStorage
from benchmarks.storm.standstill import freeze, sqlite_free
from tdmr.jobdir import JobDir
from tests.support import free_port, redis_at, wait_until
from tests.worker import scenes
from tests.worker.scenes import (
    GOOD,
    distil_job,
    hanging,
    ingest_job,
    poller_worker,
    state,
    worker_process,
)
from worker.launch import Child


@pytest.fixture
def distributed(settings: Settings, postgres_schema: str, redis_url: str) -> Settings:
    """PostgreSQL and Redis; the slow poll is so slow that only a bell can start a job."""
    migrate.upgrade(postgres_schema)
    given = {"database_url": postgres_schema, "broker_url": redis_url, "poll_seconds": 60.0}
    return Settings(**settings.model_dump() | given)


@pytest.fixture
def shared(distributed: Settings) -> Iterator[Database]:
    database = Database(distributed.url)
    yield database
    database.close()


def ring(database: Database, settings: Settings) -> None:
    """What a server would do; a worker may have been first, and owes bells of its own."""
    outbox.relay(database, settings)


def memory(pid: int) -> float:
    """MB that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def test_the_poller_runs_what_is_queued_and_hands_back_when_told_to_stop(
    database: Database, storage: LocalStorage, settings: Settings
) -> None:
    first = distil_job(database, storage, "done")
    with worker_process(settings) as worker:
        wait_until(lambda: state(database, first) == "succeeded")
        second = distil_job(database, storage, "hang")
        pids = hanging(database, second)
        assert memory(worker.pid) < 150
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(90) == 0
    assert scenes.gone(pids)
    assert state(database, second) == "queued"
    assert scenes.events(database, second)[-1].data["reason"] == "handed_back"
    assert scenes.files_under(settings.work_dir) == []


def test_the_command_itself_checks_an_upload(
    database: Database, storage: LocalStorage, settings: Settings
) -> None:
    dataset_id, job_id = ingest_job(database, storage, GOOD)
    with poller_worker(settings, "--once", "--kind", "ingest") as worker:
        assert worker.wait(90) == 0
    assert state(database, job_id) == "succeeded"
    with database.read() as session:
        assert session.get_one(Dataset, dataset_id).status == "ready"


def test_a_killed_worker_takes_its_job_along_and_another_ends_it(
    database: Database, storage: LocalStorage, settings: Settings
) -> None:
    job_id = distil_job(database, storage, ["hang", "done"])
    with worker_process(settings) as worker:
        pids = hanging(database, job_id)
        worker.kill()
        wait_until(lambda: scenes.gone(pids), seconds=90)
    assert state(database, job_id) == "running"
    with worker_process(settings):
        wait_until(lambda: state(database, job_id) == "succeeded")
    assert scenes.job(database, job_id).attempt == 2
    assert scenes.files_under(settings.work_dir) == []


def test_a_worker_stopped_past_its_lease_writes_nothing(
    database: Database, storage: LocalStorage, settings: Settings
) -> None:
    job_id = distil_job(database, storage, ["hang", "done"])
    with worker_process(settings) as stale:
        pids = hanging(database, job_id)
        freeze(stale.pid, stale.send_signal, partial(sqlite_free, settings.data_dir / "tdmr.db"))
        with worker_process(settings):
            wait_until(lambda: state(database, job_id) == "succeeded")
            events = len(scenes.events(database, job_id))
            stale.send_signal(signal.SIGCONT)
            wait_until(lambda: scenes.gone(pids), seconds=90)
            stale.send_signal(signal.SIGTERM)
            assert stale.wait(90) == 0
    job = scenes.job(database, job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert len(scenes.events(database, job_id)) == events
    assert len(scenes.files_under(storage.root / "students")) == 3  # one bundle


def test_a_worker_whose_server_dies_hands_its_job_back(
    database: Database, storage: LocalStorage, settings: Settings
) -> None:
    """Its standard input is its lifeline, as its jobs' are."""
    job_id = distil_job(database, storage, "hang")
    env = scenes.environment(settings)
    command = [sys.executable, "-m", "tests.worker.standin_worker"]
    worker = subprocess.Popen(
        command, env=os.environ | env | {"TDMR_LIFELINE": "1"}, stdin=subprocess.PIPE
    )
    pids = hanging(database, job_id)
    worker.communicate()  # closes the pipe
    assert worker.returncode == 0
    assert scenes.gone(pids)
    assert state(database, job_id) == "queued"


def test_celery_runs_what_is_rung_for(
    shared: Database, distributed: Settings, storage: LocalStorage
) -> None:
    with worker_process(distributed, "--celery") as worker:
        for _ in range(2):
            job_id = distil_job(shared, storage, "done", ring=True)
            ring(shared, distributed)
            wait_until(lambda job_id=job_id: state(shared, job_id) == "succeeded")
        assert memory(worker.pid) < 150
        job_id = distil_job(shared, storage, "hang", ring=True)
        ring(shared, distributed)
        pids = hanging(shared, job_id)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(90) == 0
    assert scenes.gone(pids)
    assert state(shared, job_id) == "queued"


def test_of_two_celery_workers_the_free_one_takes_the_next_job(
    shared: Database, distributed: Settings, storage: LocalStorage
) -> None:
    with worker_process(distributed, "--celery"):
        busy = distil_job(shared, storage, "hang", ring=True)
        ring(shared, distributed)
        hanging(shared, busy)
        waiting = distil_job(shared, storage, "done", ring=True)
        ring(shared, distributed)
        with worker_process(distributed, "--celery"):
            wait_until(lambda: state(shared, waiting) == "succeeded")
        assert state(shared, busy) == "running"
        scenes.request_cancel(shared, busy)
        wait_until(lambda: state(shared, busy) == "cancelled")


STOPPED = """
from app.settings import Settings
from worker.celery_app import consume
from worker.station import Station

station = Station(Settings())
station.stopping = True
"""
AGAIN = """
import os, signal
from celery.signals import worker_ready, worker_shutting_down as told

def interrupted(clear=told._clear_dead_receivers, again=iter([True])):  # Celery holds its lock here
    if next(again, False):
        os.kill(os.getpid(), signal.SIGTERM)
    clear()

def patched(**_):
    told._clear_dead_receivers = interrupted

worker_ready.connect(patched)
"""


@pytest.mark.parametrize("more", ["", AGAIN], ids=["once", "twice"])
def test_a_celery_worker_that_is_told_to_stop_while_it_starts_stops(
    distributed: Settings, more: str
) -> None:
    env = os.environ | scenes.environment(distributed)
    told = f"{STOPPED}{more}consume(station)"
    assert subprocess.run([sys.executable, "-c", told], env=env, timeout=90).returncode == 0


def test_celery_hears_bells_again_after_its_redis_was_away(
    shared: Database, distributed: Settings, storage: LocalStorage
) -> None:
    port = free_port()
    flaky = Settings(**distributed.model_dump() | {"broker_url": f"redis://127.0.0.1:{port}/0"})
    with ExitStack() as stack:
        with redis_at(port):
            stack.enter_context(worker_process(flaky, "--celery"))
            job_id = distil_job(shared, storage, ["hang", "done"], ring=True)
            ring(shared, flaky)
            hanging(shared, job_id)
        stack.enter_context(redis_at(port))
        scenes.request_cancel(shared, job_id)
        wait_until(lambda: state(shared, job_id) == "cancelled")
        next_id = distil_job(shared, storage, "done", ring=True)

        def heard() -> bool:
            ring(shared, flaky)
            return state(shared, next_id) == "succeeded"

        wait_until(heard)


def test_a_celery_worker_without_its_redis_still_works(
    shared: Database, distributed: Settings, storage: LocalStorage
) -> None:
    """Neither the job nor the cancel nor the stop needs the broker."""
    away = {"broker_url": f"redis://127.0.0.1:{free_port()}/0", "poll_seconds": 0.1}
    job_id = distil_job(shared, storage, "done", ring=True)
    with worker_process(Settings(**distributed.model_dump() | away), "--celery") as worker:
        wait_until(lambda: state(shared, job_id) == "succeeded")
        hung = distil_job(shared, storage, "hang", ring=True)
        pids = hanging(shared, hung)
        scenes.request_cancel(shared, hung)
        wait_until(lambda: state(shared, hung) == "cancelled")
        assert scenes.gone(pids)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(90) == 0


def test_a_jobs_process_is_told_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("TDMR_STORAGE_SECRET_KEY", "TDMR_DATABASE_URL", "AWS_SECRET_ACCESS_KEY")
    for name in names:
        monkeypatch.setenv(name, "a secret")
    job = JobDir(tmp_path)
    child = Child(["env"], job)
    wait_until(lambda: child.ended() is not None)
    child.kill()
    told = job.log.read_text()
    assert "TDMR_LIFELINE" in told
    assert "a secret" not in told
