"""Bad ends of attempts: what counts against a job, what is forgiven, and when it's over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.db import Database
from app.jobs import ends, ledger
from app.jobs.claims import Checkpoint
from app.jobs.states import State
from tdmr.errors import Failure
from tests.app.jobs import steps
from tests.app.jobs.steps import DAMAGED, FINAL, PASSING


def strikes(database: Database, job_id: str) -> int:
    return steps.job(database, job_id).strikes


def fail(database: Database, failure: Failure = PASSING, *saved: Checkpoint) -> State:
    """The next attempt saves these checkpoints and then fails; its job is due again."""
    held = steps.claim(database)
    for each in saved:
        steps.save(database, held, each)
    state = steps.do(database, ledger.fail, held, failure)
    steps.make_due(database, held.job_id)
    return state


def test_so_many_strikes_end_a_job(any_database: Database) -> None:
    (job_id,) = steps.submit(any_database, max_attempts=3)
    assert [fail(any_database) for _ in range(3)] == ["queued", "queued", "failed"]
    row = steps.job(any_database, job_id)
    assert row.failure == PASSING.model_dump(mode="json")
    assert (row.strikes, row.attempt) == (3, 3)
    assert row.ended_at is not None


def test_a_job_that_always_kills_its_worker_is_given_up(any_database: Database) -> None:
    (job_id,) = steps.submit(any_database, max_attempts=2)
    states = [steps.die(any_database, steps.claim(any_database)) for _ in range(2)]
    assert [swept.state for swept in states] == ["queued", "failed"]
    assert states[1].failure is not None
    assert states[1].failure.code == "worker_lost"
    assert "attempt 2" in states[1].failure.detail
    assert steps.job(any_database, job_id).failure == states[1].failure.model_dump(mode="json")


def test_the_stage_in_which_its_worker_was_lost_is_told(any_database: Database) -> None:
    held = steps.claimed(any_database, max_attempts=1)
    steps.beat(any_database, held, progress={"stage": {"name": "distil"}})
    failure = steps.die(any_database, held).failure
    assert failure is not None
    assert failure.stage == "distil"


def test_a_final_failure_ends_a_job_at_once(any_database: Database) -> None:
    (job_id,) = steps.submit(any_database)
    assert fail(any_database, FINAL) == "failed"
    assert steps.log(any_database, job_id) == ["submitted", "started", "failed"]


def test_a_job_that_gets_on_is_never_given_up(any_database: Database) -> None:
    """Ten deaths, each behind a checkpoint further on."""
    (job_id,) = steps.submit(any_database, max_attempts=2)
    for step in range(1, 11):
        assert fail(any_database, PASSING, steps.checkpoint(step)) == "queued"
    assert (strikes(any_database, job_id), steps.job(any_database, job_id).attempt) == (1, 10)


def test_only_what_got_further_than_ever_is_forgiven(any_database: Database) -> None:
    (job_id,) = steps.submit(any_database, max_attempts=99)
    assert fail(any_database, PASSING, steps.checkpoint(5, "reprogram", "distil")) == "queued"
    held = steps.claim(any_database)
    for place, left in (
        (steps.checkpoint(5, "reprogram", "distil"), 1),  # the same place again
        (steps.checkpoint(4, "reprogram", "distil"), 1),
        (steps.checkpoint(5, "reprogram", "distil"), 1),  # the way back to it
        (steps.checkpoint(6, "reprogram", "distil"), 0),
    ):
        steps.save(any_database, held, place)
        assert strikes(any_database, job_id) == left, place


def test_a_new_stage_is_further(any_database: Database) -> None:
    (job_id,) = steps.submit(any_database)
    fail(any_database, PASSING, steps.checkpoint(5))
    fail(any_database, PASSING, steps.checkpoint(1, "reprogram", "distil"))
    assert strikes(any_database, job_id) == 1


def test_a_job_that_begins_again_for_ever_is_given_up(any_database: Database) -> None:
    """Each attempt loses what the one before it saved, and dies where that one did."""
    (job_id,) = steps.submit(any_database, max_attempts=3)
    way = [steps.checkpoint(step) for step in (1, 2, 3)]
    states = [fail(any_database, failure, *way) for failure in (PASSING, DAMAGED, PASSING)]
    assert states == ["queued", "queued", "failed"]
    assert steps.job(any_database, job_id).furthest == {"reprogram": 3}


@pytest.mark.parametrize("step", [5, 6])
def test_a_job_that_dies_in_one_place_is_given_up(any_database: Database, step: int) -> None:
    """It saves its state again before each death; only a later step keeps it alive."""
    steps.submit(any_database, max_attempts=2)
    assert fail(any_database, PASSING, steps.checkpoint(5)) == "queued"
    again = fail(any_database, PASSING, steps.checkpoint(step))
    assert again == ("failed" if step == 5 else "queued")


def test_what_a_checkpoint_says_is_what_the_next_attempt_gets(any_database: Database) -> None:
    held = steps.claimed(any_database)
    steps.save(any_database, held, steps.student(7))
    steps.die(any_database, held)
    saved = steps.claim(any_database, "w2").checkpoint
    assert saved == steps.student(7).model_dump(mode="json")
    told = steps.events(any_database, held.job_id)[2]
    assert (told.type, told.data) == ("checkpoint", {"stage": "distil", "step": 7})


def test_a_damaged_checkpoint_is_dropped_and_the_job_tried_again(any_database: Database) -> None:
    (job_id,) = steps.submit(any_database, max_attempts=2)
    assert fail(any_database, DAMAGED, steps.student()) == "queued"
    assert steps.job(any_database, job_id).checkpoint is None
    assert steps.claim(any_database).checkpoint is None
    assert strikes(any_database, job_id) == 1


def test_a_checkpoint_that_is_always_damaged_ends_the_job(any_database: Database) -> None:
    (job_id,) = steps.submit(any_database, max_attempts=2)
    assert [fail(any_database, DAMAGED) for _ in range(2)] == ["queued", "failed"]
    failure = steps.job(any_database, job_id).failure
    assert failure is not None
    assert failure["code"] == "checkpoint"


def test_handing_back_costs_no_strike_and_no_time(any_database: Database) -> None:
    (job_id,) = steps.submit(any_database, max_attempts=1)
    for _ in range(3):
        held = steps.claim(any_database)
        assert steps.do(any_database, ledger.hand_back, held) == "queued"
    assert (strikes(any_database, job_id), steps.claim(any_database).attempt) == (0, 4)


def test_each_strike_doubles_the_wait(any_database: Database) -> None:
    (job_id,) = steps.submit(any_database, max_attempts=9)
    for seconds in (1, 2, 4):
        held = steps.claim(any_database)
        steps.do(any_database, ledger.fail, held, PASSING)
        last = steps.events(any_database, job_id)[-1]
        assert (last.type, last.data["delay"], last.data["reason"]) == (
            *("requeued", seconds),
            "failed",
        )
        waits = steps.job(any_database, job_id).run_after - last.at
        assert abs(waits - timedelta(seconds=seconds)) < timedelta(seconds=0.5)
        steps.make_due(any_database, job_id)


def test_backoff_doubles_up_to_a_limit() -> None:
    assert [ends.backoff(n) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert ends.backoff(10_000) == ends.MAX_BACKOFF_SECONDS


@pytest.mark.parametrize("call", [ledger.hand_back, ledger.fail])
def test_a_job_that_waits_again_rings_when_asked(any_database: Database, call: object) -> None:
    held = steps.claimed(any_database)
    with any_database.write() as session:
        if call is ledger.fail:
            ledger.fail(session, held, PASSING, ring=True)
        else:
            ledger.hand_back(session, held, ring=True)
    assert steps.bells(any_database) == [("tdmr.default.distil", held.job_id)]
