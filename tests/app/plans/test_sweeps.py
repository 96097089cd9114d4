"""Sweeps on both databases: one job at first, whoever asks; and all of them called off."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from app.db import Database
from app.errors import NotFoundError
from app.jobs import ledger, moves
from app.jobs.claims import Claim
from app.jobs.idempotency import Idempotency
from app.jobs.service import Terms
from app.models import Dataset, Job
from app.plans import estimates, sweeps
from app.plans.sweeps import Members, Plan
from app.settings import Settings
from tdmr.config import JobSpec
from tests.support import make_dataset

SPEC = JobSpec(foundation="letters_vit", student="test_resnet", baselines=())
STUDENTS = ("test_resnet", "resnet18", "mobilenetv3_small_100")
TOOK = {"prepare": 1.0, "cache": 2.0, "reprogram": 3.0, "distil": 4.0, "total": 9.0}
METRICS = {
    "device": "cpu",
    "seconds": TOOK,
    "foundation": {"input_size": 32},
    "student": {"input_size": 160},
    "cache": {"bytes": 1000, "reused": False},
}


def create(database: Database, settings: Settings) -> Members:
    dataset_id = make_dataset(database)
    with database.write() as session:
        row = session.get_one(Dataset, dataset_id)
        row.classes, row.version = ["a", "b"], "1" * 64
        row.splits = {"train": {"a": 9, "b": 9}, "test": {"a": 1, "b": 1}}
        return sweeps.create(
            session,
            owner="ana",
            plan=Plan(dataset_id, SPEC, STUDENTS, Terms(), "which?", {}),
            idempotency=Idempotency("key", "2" * 64),
            settings=settings,
        )


def claim(database: Database, worker: str) -> Claim | None:
    with database.write() as session:
        return moves.claim(session, worker=worker, lease_seconds=60)


def test_workers_that_ask_together_get_one_job(any_database: Database, settings: Settings) -> None:
    made = create(any_database, settings)
    together = Barrier(4)

    def ask(number: int) -> Claim | None:
        together.wait()
        return claim(any_database, f"w{number}")

    with ThreadPoolExecutor(4) as pool:
        found = [each for each in pool.map(ask, range(4)) if each is not None]
    assert [each.job_id for each in found] == [made.jobs[0].id]
    with any_database.write() as session:
        ledger.trained(session, found[0], {"trained": []}, ring=False)
        job = session.get_one(Job, found[0].job_id)
        job.spent_seconds = 20.0
        estimates.record(session, job, METRICS)
    with any_database.read() as session:
        dataset = session.get_one(Dataset, made.sweep.dataset_id)
        estimate = estimates.make(session, SPEC, dataset, "default", settings)
    assert estimate is not None
    # The cache is warm: 1 + 0 + 3 + 4 s, and 20 - 10 s of the rest.
    assert (estimate.cache, estimate.seconds) == ("warm", 18.0)


def test_it_is_found_and_called_off_by_its_owner_alone(
    any_database: Database, settings: Settings
) -> None:
    made = create(any_database, settings)
    assert claim(any_database, "w1") is not None
    sweep_id = made.sweep.id
    with any_database.write() as session, pytest.raises(NotFoundError):
        sweeps.cancel(session, "bob", sweep_id, settings)
    with any_database.write() as session:
        found = sweeps.cancel(session, "ana", sweep_id, settings)
    assert [job.state for job in found.jobs] == ["running", "cancelled", "cancelled"]
    assert found.jobs[0].cancel_requested_at is not None
    with any_database.read() as session:
        ((row, jobs),) = sweeps.newest(session, "ana", None, 10)
        assert (row.id, len(jobs)) == (sweep_id, 3)
        assert sweeps.newest(session, "bob", None, 10) == []
