"""The workers' own table: who is there, what they take, and when they are given up."""

from __future__ import annotations

from app.db import Database
from app.jobs import fleet
from tests.app.jobs import steps

PATIENCE = 60.0


def report(database: Database, worker: str = "w1", **given: object) -> None:
    options = {"host": "h", "pid": 1, "device": "cpu", "queues": ["default"], "kinds": ["distil"]}
    with database.write() as session:
        fleet.report(session, worker, **{**options, **given})  # type: ignore[arg-type]  # what is given is meant to vary


def present(database: Database) -> list[str]:
    with database.read() as session:
        return [worker.id for worker in fleet.present(session, PATIENCE)]


def serves(database: Database, queue: str, kind: str) -> bool:
    with database.read() as session:
        return bool(fleet.takers(session, queue, kind, PATIENCE))


def test_a_worker_that_reports_is_there(any_database: Database) -> None:
    report(any_database, "w2")
    report(any_database, "w1")
    assert present(any_database) == ["w1", "w2"]


def test_a_worker_that_reports_again_is_the_same_one(any_database: Database) -> None:
    report(any_database, device="cpu")
    with any_database.read() as session:
        (before,) = fleet.present(session, PATIENCE)
    report(any_database, device="cuda:0", queues=["big"], kinds=["package"], pid=2)
    with any_database.read() as session:
        (after,) = fleet.present(session, PATIENCE)
    assert (after.device, after.queues, after.kinds, after.pid) == (
        "cuda:0",
        ["big"],
        ["package"],
        2,
    )
    assert after.started_at == before.started_at
    assert after.seen_at >= before.seen_at


def test_a_worker_that_leaves_is_gone(any_database: Database) -> None:
    report(any_database, "w1")
    report(any_database, "w2")
    with any_database.write() as session:
        fleet.leave(session, "w1")
        fleet.leave(session, "w9")
    assert present(any_database) == ["w2"]


def test_a_silent_worker_isnt_there_and_is_forgotten(any_database: Database) -> None:
    report(any_database, "w1")
    steps.pass_time(any_database, PATIENCE + 1)
    report(any_database, "w2")
    assert present(any_database) == ["w2"]
    with any_database.write() as session:
        fleet.forget(session, PATIENCE)
    with any_database.read() as session:
        assert [worker.id for worker in fleet.present(session, 10**6)] == ["w2"]


def test_a_worker_serves_each_of_its_queues_with_each_of_its_kinds(any_database: Database) -> None:
    report(any_database, "w1", queues=["a", "b"], kinds=["distil", "package"])
    report(any_database, "w2", queues=["c"], kinds=["ingest"])
    assert serves(any_database, "a", "package")
    assert serves(any_database, "b", "distil")
    assert serves(any_database, "c", "ingest")
    assert not serves(any_database, "c", "distil")
    assert not serves(any_database, "a", "ingest")
    steps.pass_time(any_database, PATIENCE + 1)
    assert not serves(any_database, "a", "package")
