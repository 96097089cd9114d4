"""A job's seconds of work: counted over its attempts, and what happens when they are over."""

from __future__ import annotations

import pytest

from app.db import Database
from app.jobs import ledger, moves
from app.jobs.claims import Orders
from tests.app.jobs import steps
from tests.app.jobs.steps import FINAL, PASSING

SLOW = 20.0  # seconds that a step of a test may take on a busy machine


def spent(database: Database, job_id: str) -> float:
    return moves.spent(steps.job(database, job_id))


def about(seconds: float) -> object:
    return pytest.approx(seconds + SLOW / 2, abs=SLOW / 2)


def test_the_seconds_of_every_attempt_count_and_those_between_dont(any_database: Database) -> None:
    (job_id,) = steps.submit(any_database)
    first = steps.claim(any_database)
    steps.pass_time(any_database, 100)
    assert spent(any_database, job_id) == about(0)  # nothing was heard since
    steps.beat(any_database, first)
    assert spent(any_database, job_id) == about(100)
    steps.do(any_database, ledger.hand_back, first)
    steps.pass_time(any_database, 1000)
    assert steps.job(any_database, job_id).spent_seconds == about(100)
    second = steps.claim(any_database)
    steps.pass_time(any_database, 50)
    steps.do(any_database, ledger.fail, second, PASSING)
    assert steps.job(any_database, job_id).spent_seconds == about(150)


def test_of_a_worker_that_died_only_what_was_heard_counts(any_database: Database) -> None:
    held = steps.claimed(any_database)
    steps.pass_time(any_database, 30)
    steps.beat(any_database, held)
    steps.pass_time(any_database, 500)
    steps.sweep(any_database)
    assert steps.job(any_database, held.job_id).spent_seconds == about(30)


def test_pausing_costs_time_and_being_paused_doesnt(any_database: Database) -> None:
    held = steps.claimed(any_database)
    steps.pass_time(any_database, 10)
    steps.ask(any_database, ledger.request_pause, held.job_id)
    steps.pass_time(any_database, 20)
    steps.do(any_database, ledger.paused, held)
    steps.pass_time(any_database, 1000)
    assert spent(any_database, held.job_id) == about(30)


@pytest.mark.parametrize("end", ["trained", "failed", "cancelled"])
def test_an_end_keeps_the_count(any_database: Database, end: str) -> None:
    held = steps.claimed(any_database)
    steps.pass_time(any_database, 40)
    with any_database.write() as session:
        if end == "trained":
            ledger.trained(session, held, {}, ring=False)
        elif end == "failed":
            ledger.fail(session, held, FINAL)
        else:
            ledger.cancelled(session, held)
    steps.pass_time(any_database, 1000)
    assert steps.job(any_database, held.job_id).spent_seconds == about(40)


def test_a_beat_tells_when_the_budget_is_spent_over_all_attempts(any_database: Database) -> None:
    steps.submit(any_database, max_seconds=120.0)
    held = steps.claim(any_database)
    steps.pass_time(any_database, 100)
    assert steps.beat(any_database, held) == Orders()
    steps.do(any_database, ledger.hand_back, held)
    held = steps.claim(any_database)
    assert steps.beat(any_database, held) == Orders()
    steps.pass_time(any_database, 30)
    with any_database.read() as session:
        assert ledger.orders(session, held) == Orders(budget_spent=True)
    assert steps.beat(any_database, held) == Orders(budget_spent=True)


def test_a_budget_that_is_spent_already_is_told_at_once(any_database: Database) -> None:
    """Its worker died before it could obey."""
    steps.submit(any_database, max_seconds=50.0)
    held = steps.claim(any_database)
    steps.pass_time(any_database, 55)
    steps.beat(any_database, held)
    steps.die(any_database, held)
    held = steps.claim(any_database)
    with any_database.read() as session:
        assert ledger.orders(session, held).budget_spent


def test_without_a_budget_none_is_spent(any_database: Database) -> None:
    held = steps.claimed(any_database)
    steps.pass_time(any_database, 10**8)
    assert steps.beat(any_database, held) == Orders()


def test_a_spent_budget_leaves_the_student_so_far(any_database: Database) -> None:
    held = steps.claimed(any_database, max_seconds=50.0)
    steps.save(any_database, held, steps.student())
    with any_database.write() as session:
        assert ledger.budget_spent(session, held, ring=True) == "packaging"
    row = steps.job(any_database, held.job_id)
    assert (row.failure, row.ended_at, row.lease_owner) == (None, None, None)
    last = steps.events(any_database, held.job_id)[-1]
    assert (last.type, last.data) == ("budget_spent", {"max_seconds": 50.0})
    package = steps.package_of(any_database, held.job_id)
    assert package is not None
    assert (package.spec, package.max_seconds) == ({"rescue": True}, None)
    assert steps.bells(any_database) == [("tdmr.default.package", package.id)]


@pytest.mark.parametrize("saved", [False, True])
def test_a_spent_budget_without_a_student_is_a_failure_with_advice(
    any_database: Database, saved: bool
) -> None:
    held = steps.claimed(any_database, max_seconds=50.0)
    if saved:
        steps.save(any_database, held, steps.checkpoint(3))
    steps.beat(any_database, held, progress={"stage": {"name": "reprogram"}})
    assert steps.do(any_database, ledger.budget_spent, held) == "failed"
    failure = steps.job(any_database, held.job_id).failure
    assert failure is not None
    assert (failure["code"], failure["user_error"]) == ("budget_exhausted", True)
    assert (failure["stage"], failure["retryable"]) == ("reprogram", False)
    assert failure["change"] == {"budget": {"max_seconds": 200.0}}
    assert steps.package_of(any_database, held.job_id) is None
