"""One job from its claim to its end, with a stand-in for its process."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.orm import Session

from app import migrate
from app.db import Database, now
from app.jobs import ledger, moves, queue
from app.jobs.claims import Claim
from app.jobs.states import State
from app.models import Job, Latency, Student
from app.plans import estimates
from app.plans.tables import Throughput
from app.settings import Settings
from tests.support import make_dataset, wait_until
from tests.worker import scenes
from tests.worker.bench import Bench
from tests.worker.scenes import GOOD, ingest_job
from tests.worker.standin import METRICS
from tests.worker.standin_worker import standin
from worker import pipeline
from worker.heart import Heart
from worker.kinds import make
from worker.launch import Child
from worker.site import Site


def test_with_nothing_due_nothing_happens(bench: Bench) -> None:
    assert bench.run() is False


@contextmanager
def writing(database: Database) -> Iterator[None]:
    """Somebody else's transaction, for which all who want to write wait."""
    with database.write() as session:
        session.connection()
        yield


def test_to_find_nothing_due_waits_for_nobody_who_writes(bench: Bench) -> None:
    with writing(bench.database):
        assert bench.run() is False


def test_a_lease_begins_when_it_is_granted_and_not_when_it_was_asked_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []
    looked = threading.Event()

    class Begun(Heart):
        def __init__(self, *given: Any) -> None:
            begun.append(given[-1])
            super().__init__(*given)

    def look(*given: Any) -> bool:
        looked.set()
        return True

    monkeypatch.setattr(pipeline, "Heart", Begun)
    monkeypatch.setattr(moves, "is_any", look)
    bench.submit("done")
    with writing(bench.database):
        running = bench.begin()
        assert looked.wait(90)
        time.sleep(0.5)  # by now it waits to write
        free = time.monotonic()
    assert running.result(timeout=90) is True
    assert begun[0] >= free


def test_a_job_that_succeeds_leaves_a_student_and_nothing_else(bench: Bench) -> None:
    job_id = bench.submit("done")
    assert bench.run() is True
    assert bench.job(job_id).state == "packaging"
    bench.finish()
    assert bench.job(job_id).state == "succeeded"
    with bench.database.read() as session:
        student = session.scalars(select(Student)).one()
    assert (student.job_id, student.partial) == (job_id, False)
    assert student.metrics == {**METRICS, "resumed_from": 0}
    assert sorted(Path(name).name for name in bench.left()) == [
        "manifest.json",
        "metrics.json",
        "model.safetensors",
    ]
    log = scenes.events(bench.database, job_id)
    assert [e.type for e in log] == ["submitted", "started", "progress", "trained", "succeeded"]
    assert log[2].data["steps"] == 3
    assert log[-1].data == {"student_id": student.id, "partial": False}


def unreadable(session: Session, job: Job, metrics: dict[str, Any]) -> None:
    """A record of a job's speed that is half written, and that the database refuses."""
    job.estimate_error = 1.0
    session.execute(insert(Throughput).values(id="thr_1"))


def test_a_training_isnt_failed_for_what_is_learnt_of_its_speed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "record", unreadable)
    job_id = bench.submit("done", spec={"metrics": {"seconds": {"total": 1.0}}})
    bench.finish()
    job = bench.job(job_id)
    assert (job.state, job.attempt, job.estimate_error) == ("succeeded", 1, None)


def test_what_was_measured_of_a_student_is_written_down_for_its_owner(bench: Bench) -> None:
    onnx = {
        "published": True,
        "bytes": 1_900_000,
        "latency": {"p50_ms": 1.5, "p95_ms": 1.75, "threads": 1},
    }
    machine = {"cpu": "Chip 9", "cores": 2, "system": "Linux x86_64", "onnxruntime": "1.31.1"}
    metrics = {
        "partial": None,
        "student": {"architecture": "test_resnet", "params": 470_000, "input_size": 160},
        "exports": {"machine": machine, "formats": {"onnx": onnx}},
    }
    for _ in range(2):  # the second one is measured before
        bench.submit("done", spec={"metrics": metrics})
        bench.finish()
    with bench.database.read() as session:
        assert len(session.scalars(select(Student)).all()) == 2
        (row,) = session.scalars(select(Latency))
    assert (row.owner, row.model, row.input_size) == ("ana", "test_resnet", 160)
    assert (row.p50_ms, row.machine) == (1.5, "Chip 9, 2 cores, Linux x86_64")


def test_tidying_up_keeps_what_was_published(bench: Bench) -> None:
    """A worker that never got the answer to its commit tidies up as if it had been refused."""
    bench.submit("done")
    ingest_job(bench.database, bench.storage, GOOD)
    for launch in (Child, standin, standin):  # in the order of the queue: check, train, package
        with bench.database.write() as session:
            due = queue.due(now(session), None, None)
            job_id = session.scalar(select(due.c.id).where(due.c.position == 1))
        assert bench.run(launch)
        row = bench.job(str(job_id))
        claim = Claim(
            *(row.id, row.kind, row.attempt, row.owner, row.dataset_id, row.model_id),
            row.parent_id,
            *(row.spec, row.checkpoint, "bench"),
        )
        before = scenes.files_under(bench.storage.root)
        make(Site(bench.database, bench.storage, bench.settings, claim)).tidy()
        assert scenes.files_under(bench.storage.root) == before
    assert bench.run() is False


def test_a_database_that_breaks_during_the_finish_is_asked_again(
    postgres_schema: str, settings: Settings
) -> None:
    migrate.upgrade(postgres_schema)
    database = Database(postgres_schema)
    dataset_id = make_dataset(database)
    with database.write() as session:
        options: dict[str, Any] = {"owner": "ana", "dataset_id": dataset_id, "spec": {}}
        moves.submit(session, kind="distil", **options, max_attempts=1, ring=False)
        claim = moves.claim(session, worker="w1", lease_seconds=60)
    assert claim is not None
    tries = []

    def finish(session: Session) -> State:
        tries.append(1)
        ledger.succeed(session, claim, {})
        if len(tries) == 1:
            session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return State.SUCCEEDED

    heart = Heart(database, claim, settings, time.monotonic())
    assert pipeline._persist(database, heart, finish) == "succeeded"
    assert len(tries) == 2
    assert [e.type for e in scenes.events(database, claim.job_id)][1:] == ["started", "succeeded"]
    database.close()


def test_a_dataset_that_the_store_has_damaged_is_never_trained_on(bench: Bench) -> None:
    job_id = bench.submit("done")
    (path,) = bench.storage.root.glob("datasets/*/dataset-1.zip")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert bench.run()
    assert bench.job(job_id).state == "queued"  # to be tried again: the store may recover
    told = [event.data for event in scenes.events(bench.database, job_id)]
    assert told[-1]["failure"]["code"] == "damaged_file"


def test_a_failure_is_kept_with_its_words(bench: Bench) -> None:
    job_id = bench.submit("fail")
    bench.run()
    job = bench.job(job_id)
    assert job.state == "failed"
    assert job.failure is not None
    assert job.failure["code"] == "non_finite_loss"
    assert job.failure["log"] == ["the loss is not finite"]
    assert bench.left() == []


@pytest.mark.parametrize(
    ("play", "how"), [("crash", "killed by SIGKILL"), ("quit", "exit status 3")]
)
def test_a_death_is_tried_again_then_told(bench: Bench, play: str, how: str) -> None:
    job_id = bench.submit(play, max_attempts=2)
    bench.run()
    assert bench.job(job_id).state == "queued"
    assert bench.run() is False  # it waits out its back-off
    scenes.make_due(bench.database, job_id)
    bench.run()
    job = bench.job(job_id)
    assert (job.state, job.attempt) == ("failed", 2)
    assert job.failure is not None
    assert job.failure["code"] == "process_died"
    assert how in job.failure["detail"]
    assert job.failure["stage"] == "first"
    if play == "crash":
        assert job.failure["log"] == ["allocating", "allocating more"]


@pytest.mark.parametrize("play", ["hang", "defy"])
def test_cancel_means_that_nothing_runs_any_more(bench: Bench, play: str) -> None:
    job_id = bench.submit(play)
    running = bench.begin()
    pids = scenes.hanging(bench.database, job_id)
    scenes.request_cancel(bench.database, job_id)
    wait_until(lambda: bench.job(job_id).state == "cancelled")
    assert scenes.gone(pids)
    running.result(timeout=90)
    assert bench.left() == []


def test_a_worker_that_must_go_hands_its_job_back(bench: Bench) -> None:
    job_id = bench.submit("hang")
    running = bench.begin()
    pids = scenes.hanging(bench.database, job_id)
    bench.stop = True
    running.result(timeout=90)
    assert scenes.gone(pids)
    job = bench.job(job_id)
    assert (job.state, job.lease_owner) == ("queued", None)


def steal(database: Database, job_id: str) -> None:
    """Another worker finds the lease run out, and claims the job."""
    with database.write() as session:
        past = now(session) - timedelta(seconds=1)
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=past))
        ledger.sweep(session)
        session.execute(update(Job).where(Job.id == job_id).values(run_after=past))
        assert moves.claim(session, worker="thief", lease_seconds=60) is not None


def test_a_lost_lease_ends_the_process_and_writes_nothing(bench: Bench) -> None:
    job_id = bench.submit("hang")
    running = bench.begin()
    pids = scenes.hanging(bench.database, job_id)
    steal(bench.database, job_id)
    running.result(timeout=90)
    assert scenes.gone(pids)
    job = bench.job(job_id)
    assert (job.state, job.attempt, job.lease_owner) == ("running", 2, "thief")
    assert bench.left() == []


def test_a_result_that_comes_too_late_is_refused(bench: Bench, tmp_path: Path) -> None:
    """The thief came after the last heartbeat: only the fence of the finish can see it."""
    bench.settings.heartbeat_seconds = bench.settings.lease_seconds = 60
    gate = tmp_path / "gate"
    job_id = bench.submit("wait", spec={"gate": str(gate)})
    running = bench.begin()
    wait_until(lambda: bench.job(job_id).progress is not None)
    steal(bench.database, job_id)
    before = [(e.seq, e.type) for e in scenes.events(bench.database, job_id)]
    gate.touch()
    running.result(timeout=90)
    with bench.database.read() as session:
        assert session.scalars(select(Student)).all() == []
    assert bench.job(job_id).lease_owner == "thief"
    assert [(e.seq, e.type) for e in scenes.events(bench.database, job_id)] == before
    assert bench.left() == []


def test_without_its_database_a_job_gives_itself_up(bench: Bench, settings: Settings) -> None:
    bench.settings.lease_seconds = 2.0
    job_id = bench.submit("hang")
    running = bench.begin()
    pids = scenes.hanging(bench.database, job_id)
    lock = sqlite3.connect(settings.data_dir / "tdmr.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    wait_until(lambda: scenes.gone(pids), seconds=4)
    lock.execute("ROLLBACK")
    lock.close()
    running.result(timeout=90)
    assert bench.job(job_id).state == "running"  # the sweep's to settle
    assert bench.left() == []


def test_a_job_that_the_worker_cannot_prepare_is_failed(bench: Bench) -> None:
    job_id = bench.submit("done", max_attempts=1)
    bench.storage.delete("datasets")
    bench.run()
    job = bench.job(job_id)
    assert job.state == "failed"
    assert job.failure is not None
    assert job.failure["code"] == "worker_error"
    assert str(bench.settings.data_dir) not in str(job.failure)


def test_a_bundle_that_is_not_what_it_says_is_no_student(bench: Bench) -> None:
    def spoil(command: list[str], job: Any) -> Child:
        code = "import sys; from tests.worker import standin; standin.main()"
        code += "; open(sys.argv[2] + '/out/model.safetensors', 'ab').write(b'x')"
        return Child([sys.executable, "-c", code, command[3], str(job.path)], job)

    job_id = bench.submit("done", max_attempts=1)
    bench.run()
    bench.run(spoil)
    assert bench.job(job_id).state == "failed"
    assert bench.left() == []
