"""What is kept of a job that doesn't run through: checkpoints, pauses, budgets, students so far."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.jobs import ledger
from app.jobs.claims import Checkpoint
from app.models import Job, Student
from tdmr.jobdir import JobDir
from tests.support import wait_until
from tests.worker import scenes
from tests.worker.bench import Bench
from tests.worker.standin_worker import standin
from worker import collector
from worker.launch import Child


def step(bench: Bench, job_id: str) -> int:
    """The step that the job would go on from; 0 without a checkpoint."""
    stored = bench.job(job_id).checkpoint
    return Checkpoint.model_validate(stored).step if stored else 0


def saving(bench: Bench, job_id: str) -> None:
    """Begin the job, and wait until its first checkpoint is safe."""
    before = step(bench, job_id)
    bench.begin()
    wait_until(lambda: step(bench, job_id) > before)


def settled(bench: Bench, job_id: str, state: str) -> Job:
    wait_until(lambda: bench.job(job_id).state == state)
    bench.pool.submit(lambda: None).result(timeout=90)  # behind what tidies up
    return bench.job(job_id)


def change(bench: Bench, job_id: str, request: str) -> None:
    def call(session: Session) -> None:
        getattr(ledger, f"request_{request}")(session, session.get_one(Job, job_id))

    with bench.database.write() as session:
        call(session)


def student(bench: Bench, job_id: str) -> Student | None:
    with bench.database.read() as session:
        return session.scalars(select(Student).where(Student.job_id == job_id)).one_or_none()


def kept(bench: Bench) -> list[str]:
    return [Path(name).name for name in scenes.files_under(bench.storage.root / "checkpoints")]


def test_a_paused_job_goes_on_where_it_stopped(bench: Bench) -> None:
    job_id = bench.submit(["save", "done"])
    saving(bench, job_id)
    change(bench, job_id, "pause")
    job = settled(bench, job_id, "paused")
    assert (job.lease_owner, step(bench, job_id)) == (None, 11)  # what SIGTERM had it save
    assert kept(bench) == ["1-2-distil.safetensors"]
    assert bench.run() is False
    change(bench, job_id, "resume")
    bench.finish()
    found = student(bench, job_id)
    assert found is not None
    assert (found.metrics["resumed_from"], found.partial) == (11, False)
    assert kept(bench) == []


def test_a_worker_that_goes_leaves_a_checkpoint(bench: Bench) -> None:
    job_id = bench.submit(["save", "done"])
    saving(bench, job_id)
    bench.stop = True
    assert settled(bench, job_id, "queued").strikes == 0
    bench.stop = False
    bench.finish()
    found = student(bench, job_id)
    assert found is not None
    assert found.metrics["resumed_from"] == 11


def test_a_death_costs_what_came_after_the_checkpoint(bench: Bench) -> None:
    job_id = bench.submit(["save", "done"])
    processes: list[Child] = []

    def launch(command: list[str], job: JobDir) -> Child:
        processes.append(standin(command, job))
        return processes[-1]

    running = bench.pool.submit(bench.run, launch)
    wait_until(lambda: step(bench, job_id) == 1)
    os.killpg(processes[0].pid, signal.SIGKILL)
    running.result(timeout=90)
    assert (bench.job(job_id).state, bench.job(job_id).strikes) == ("queued", 1)
    scenes.make_due(bench.database, job_id)
    bench.finish()
    found = student(bench, job_id)
    assert found is not None
    assert found.metrics["resumed_from"] == 1


@pytest.mark.parametrize("harm", ["lost", "changed"])
def test_a_damaged_checkpoint_means_to_begin_again(bench: Bench, harm: str) -> None:
    job_id = bench.submit(["save", "done"])
    saving(bench, job_id)
    change(bench, job_id, "pause")
    settled(bench, job_id, "paused")
    (file,) = scenes.files_under(bench.storage.root / "checkpoints")
    Path(file).unlink() if harm == "lost" else Path(file).write_text("99")
    change(bench, job_id, "resume")
    bench.finish()
    found = student(bench, job_id)
    assert found is not None
    assert found.metrics["resumed_from"] == 0


def test_a_cancelled_job_leaves_the_student_so_far(bench: Bench) -> None:
    job_id = bench.submit("save")
    saving(bench, job_id)
    change(bench, job_id, "cancel")
    settled(bench, job_id, "cancelled")
    bench.finish()
    found = student(bench, job_id)
    assert found is not None
    assert (found.partial, found.metrics["partial"]["step"]) == (True, 11)
    assert scenes.events(bench.database, job_id)[-1].type == "student_ready"
    assert kept(bench) == ["1-2-distil.safetensors"]  # a retry may go on from it


def test_a_budget_ends_with_the_student_so_far(bench: Bench) -> None:
    job_id = bench.submit("save", max_seconds=0.5)
    bench.begin()
    settled(bench, job_id, "packaging")
    bench.finish()
    found = student(bench, job_id)
    assert found is not None
    assert (bench.job(job_id).state, found.partial) == ("succeeded", True)
    assert bench.job(job_id).spent_seconds >= 0.5


def test_a_budget_that_is_over_before_there_is_a_student_is_told(bench: Bench) -> None:
    job_id = bench.submit("hang", max_seconds=0.5)
    bench.begin()
    job = settled(bench, job_id, "failed")
    assert job.failure is not None
    assert job.failure["code"] == "budget_exhausted"
    assert job.failure["change"] == {"budget": {"max_seconds": 2.0}}


def test_packaging_is_tried_again_without_training(bench: Bench) -> None:
    job_id = bench.submit("done", spec={"package_play": ["quit", "done"]})
    bench.finish()
    assert bench.job(job_id).state == "packaging"
    with bench.database.write() as session:
        session.execute(update(Job).values(run_after=bench.job(job_id).created_at))
    bench.finish()
    assert (bench.job(job_id).state, bench.job(job_id).attempt) == ("succeeded", 1)
    assert student(bench, job_id) is not None
    assert scenes.files_under(bench.storage.root / "trained") == []


def test_packaging_that_never_works_fails_the_job_and_says_why(bench: Bench) -> None:
    job_id = bench.submit("done", spec={"package_play": "quit"}, max_attempts=1)
    bench.finish()
    job = bench.job(job_id)
    assert job.state == "failed"
    assert job.failure is not None
    assert job.failure["code"] == "process_died"
    assert scenes.files_under(bench.storage.root / "trained") == []


def test_only_what_no_row_speaks_of_is_collected(bench: Bench) -> None:
    kept_id, done_id = bench.submit("save"), bench.submit("done")
    saving(bench, kept_id)
    change(bench, kept_id, "pause")
    settled(bench, kept_id, "paused")
    bench.run()  # trained, and not yet packaged
    bench.settings.lease_seconds = 0.0  # whatever is stored is old enough
    before = scenes.files_under(bench.storage.root)
    assert collector.collect(bench.database, bench.storage, bench.settings) == 0
    stray = ["checkpoints/job_0/1-1-x", f"checkpoints/{kept_id}/1-9-x", f"trained/{done_id}-9/x"]
    stray += ["trained/job_0-1/x", "students/stu_0/x", f"students/stu_{done_id[4:]}01/x"]
    stray += [f"datasets/{bench.job(kept_id).dataset_id}/dataset-9.zip", "datasets/ds_0/d.zip"]
    source = bench.settings.data_dir / "source"
    source.write_bytes(b"x")
    for key in stray:
        bench.storage.put(key, source)
    assert collector.collect(bench.database, bench.storage, bench.settings) == len(stray)
    assert scenes.files_under(bench.storage.root) == before
