"""Pause, resume and cancel, at every moment at which a user may ask for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.db import Database
from app.errors import ConflictError
from app.jobs import ledger
from app.jobs.claims import Claim, Orders
from tests.app.jobs import steps
from tests.app.jobs.steps import BROKEN, FINAL, PASSING

Leave = Callable[[Database, Claim], object]


def fails(database: Database, held: Claim) -> None:
    steps.do(database, ledger.fail, held, PASSING)


def hands_back(database: Database, held: Claim) -> None:
    steps.do(database, ledger.hand_back, held)


def falls_silent(database: Database, held: Claim) -> None:
    steps.expire(database, held.job_id)
    steps.sweep(database)


def says_paused(database: Database, held: Claim) -> None:
    steps.do(database, ledger.paused, held)


def says_cancelled(database: Database, held: Claim) -> None:
    steps.do(database, ledger.cancelled, held)


def says_budget_spent(database: Database, held: Claim) -> None:
    steps.do(database, ledger.budget_spent, held)


def pausing(database: Database, **given: object) -> Claim:
    """A running job that is asked to pause."""
    held = steps.claimed(database, **given)
    assert steps.ask(database, ledger.request_pause, held.job_id) == "pausing"
    return held


def test_a_queued_job_pauses_at_once_and_isnt_claimed(any_database: Database) -> None:
    (job_id,) = steps.submit(any_database)
    assert steps.ask(any_database, ledger.request_pause, job_id) == "paused"
    assert steps.claim_or_none(any_database) is None
    row = steps.job(any_database, job_id)
    assert row.pause_requested_at is not None
    assert row.ended_at is None


def test_a_running_job_goes_on_until_its_state_is_safe(any_database: Database) -> None:
    held = pausing(any_database)
    assert steps.beat(any_database, held) == Orders(pause=True)
    with any_database.read() as session:
        assert ledger.orders(session, held) == Orders(pause=True)
    steps.save(any_database, held, steps.checkpoint(4))
    assert steps.do(any_database, ledger.paused, held) == "paused"
    row = steps.job(any_database, held.job_id)
    assert (row.lease_owner, row.lease_until, row.strikes) == (None, None, 0)
    assert row.checkpoint == steps.checkpoint(4).model_dump(mode="json")
    assert steps.log(any_database, held.job_id) == [
        *("submitted", "started", "pause_requested", "checkpoint", "paused"),
    ]


def test_a_paused_job_goes_on_where_it_stopped(any_database: Database) -> None:
    held = pausing(any_database)
    steps.beat(any_database, held, progress={"step": 4})
    steps.save(any_database, held, steps.checkpoint(4))
    says_paused(any_database, held)
    with any_database.write() as session:
        row = ledger.request_resume(session, steps.job(any_database, held.job_id), ring=True)
        assert (row.state, row.pause_requested_at, row.progress) == ("queued", None, None)
    assert steps.bells(any_database) == [("tdmr.default.distil", held.job_id)]
    again = steps.claim(any_database, "w2")
    assert (again.job_id, again.attempt) == (held.job_id, 2)
    assert again.checkpoint == steps.checkpoint(4).model_dump(mode="json")


def test_to_resume_forgives_the_strikes_and_the_wait(any_database: Database) -> None:
    held = steps.claimed(any_database, max_attempts=2)
    fails(any_database, held)
    steps.put_off(any_database, held.job_id)
    steps.ask(any_database, ledger.request_pause, held.job_id)
    steps.ask(any_database, ledger.request_resume, held.job_id)
    assert steps.job(any_database, held.job_id).strikes == 0
    assert steps.do(any_database, ledger.fail, steps.claim(any_database), PASSING) == "queued"


@pytest.mark.parametrize("leave", [fails, hands_back, falls_silent, says_paused])
def test_however_a_pausing_job_leaves_its_worker_it_is_paused(
    any_database: Database, leave: Leave
) -> None:
    held = pausing(any_database)
    leave(any_database, held)
    row = steps.job(any_database, held.job_id)
    assert (row.state, row.lease_owner, row.ended_at) == ("paused", None, None)
    assert steps.log(any_database, held.job_id)[-1] == "paused"
    steps.make_due(any_database, held.job_id)
    assert steps.claim_or_none(any_database) is None
    assert steps.bells(any_database) == []


def test_a_pausing_job_that_dies_once_too_often_has_failed(any_database: Database) -> None:
    held = pausing(any_database, max_attempts=1)
    falls_silent(any_database, held)
    assert steps.job(any_database, held.job_id).state == "failed"


def test_a_pausing_job_can_come_to_its_end(any_database: Database) -> None:
    held = pausing(any_database)
    steps.do(any_database, ledger.fail, held, FINAL)
    assert steps.job(any_database, held.job_id).state == "failed"


def test_to_pause_twice_is_to_pause_once(any_database: Database) -> None:
    held = pausing(any_database)
    before = steps.everything(any_database)
    assert steps.ask(any_database, ledger.request_pause, held.job_id) == "pausing"
    assert steps.everything(any_database) == before
    says_paused(any_database, held)
    before = steps.everything(any_database)
    assert steps.ask(any_database, ledger.request_pause, held.job_id) == "paused"
    assert steps.everything(any_database) == before


def test_only_a_paused_job_is_resumed(any_database: Database) -> None:
    held = pausing(any_database)
    with pytest.raises(ConflictError, match="pausing") as caught:
        steps.ask(any_database, ledger.request_resume, held.job_id)
    assert caught.value.headers == {"Retry-After": "2"}
    says_paused(any_database, held)
    assert steps.ask(any_database, ledger.request_resume, held.job_id) == "queued"
    with pytest.raises(ConflictError, match="queued"):
        steps.ask(any_database, ledger.request_resume, held.job_id)


def test_cancel_of_a_waiting_job_is_at_once(any_database: Database) -> None:
    for stop in (None, ledger.request_pause):
        (job_id,) = steps.submit(any_database)
        if stop is not None:
            steps.ask(any_database, stop, job_id)
        assert steps.ask(any_database, ledger.request_cancel, job_id) == "cancelled"
        row = steps.job(any_database, job_id)
        assert row.ended_at is not None
        assert row.cancel_requested_at is not None
        assert steps.package_of(any_database, job_id) is None
        with pytest.raises(ConflictError, match="cancelled"):
            steps.ask(any_database, ledger.request_cancel, job_id)


def test_cancel_of_a_paused_job_saves_its_student(any_database: Database) -> None:
    held = pausing(any_database)
    steps.save(any_database, held, steps.student())
    says_paused(any_database, held)
    assert steps.ask(any_database, ledger.request_cancel, held.job_id) == "cancelled"
    package = steps.package_of(any_database, held.job_id)
    assert package is not None
    assert (package.kind, package.spec) == ("package", {"rescue": True})


LEAVES = [says_cancelled, says_paused, says_budget_spent, fails, hands_back, falls_silent]


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("begin", [steps.claimed, pausing])
def test_however_a_cancelled_job_leaves_its_worker_it_is_cancelled(
    any_database: Database, begin: Callable[..., Claim], leave: Leave
) -> None:
    held = begin(any_database, max_seconds=100.0)
    state = "running" if begin is steps.claimed else "pausing"
    for _ in range(2):  # to ask twice is to ask once
        assert steps.ask(any_database, ledger.request_cancel, held.job_id) == state
    assert steps.beat(any_database, held) == Orders(cancel=True, pause=state == "pausing")
    leave(any_database, held)
    assert steps.job(any_database, held.job_id).state == "cancelled"
    assert steps.log(any_database, held.job_id)[-2:] == ["cancel_requested", "cancelled"]
    assert steps.claim_or_none(any_database) is None


def test_what_is_being_cancelled_cant_be_paused(any_database: Database) -> None:
    held = steps.claimed(any_database)
    steps.ask(any_database, ledger.request_cancel, held.job_id)
    with pytest.raises(ConflictError, match="being cancelled"):
        steps.ask(any_database, ledger.request_pause, held.job_id)


def test_a_result_that_is_there_before_the_cancel_is_heard_counts(any_database: Database) -> None:
    held = steps.claimed(any_database)
    steps.ask(any_database, ledger.request_cancel, held.job_id)
    with any_database.write() as session:
        ledger.trained(session, held, {"trained": []}, ring=False)
    assert steps.job(any_database, held.job_id).state == "packaging"


@pytest.mark.parametrize("end", [FINAL, BROKEN])
@pytest.mark.parametrize("ask", [ledger.request_cancel, ledger.request_pause])
def test_what_has_ended_stays_as_it_is(
    any_database: Database, ask: Callable[..., object], end: object
) -> None:
    held = steps.claimed(any_database)
    steps.do(any_database, ledger.fail, held, end)
    before = steps.everything(any_database)
    with pytest.raises(ConflictError, match="failed already"):
        steps.ask(any_database, ask, held.job_id)  # type: ignore[arg-type]  # what is given is meant to vary
    assert steps.everything(any_database) == before
