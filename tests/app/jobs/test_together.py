"""Jobs of a sweep: one goes first, the others wait until it has shown the views, and no longer."""

from __future__ import annotations

from typing import Any

import pytest

from app.db import Database
from app.jobs import ledger, queue
from app.jobs.claims import Claim
from app.models import Job
from app.outbox import _owed
from tests.app.jobs import steps
from tests.app.jobs.steps import BROKEN, FINAL, PASSING
from tests.support import make_dataset

PATIENCE = 60.0


def sweep(database: Database, count: int = 3, **given: Any) -> list[str]:
    """The jobs of a sweep, in order: all but the first wait."""
    dataset_id = make_dataset(database)
    common = {"dataset_id": dataset_id, "sweep_id": "swp_1", **given}
    (first,) = steps.submit(database, **common)
    return [first, *steps.submit(database, count - 1, waits_for=first, **common)]


def free(database: Database, *ids: str) -> list[bool]:
    """Which of them wait for no other."""
    with database.read() as session:
        return [session.get_one(Job, job_id).waits_for is None for job_id in ids]


def reach(database: Database, claimant: Claim, stage: str) -> None:
    told = {"event": "progress", "stage": {"name": stage, "index": 1, "count": 4, "progress": 0.5}}
    steps.beat(database, claimant, progress=told)


def reasons(database: Database, *ids: str) -> list[str | None]:
    with database.read() as session:
        jobs = [session.get_one(Job, job_id) for job_id in ids]
        found = queue.places(session, jobs, PATIENCE)
    return [found[job_id].reason if job_id in found else None for job_id in ids]


def test_the_first_alone_can_be_claimed(any_database: Database) -> None:
    ids = sweep(any_database)
    assert reasons(any_database, *ids) == ["no_worker", "sweep", "sweep"]
    assert steps.claim(any_database).job_id == ids[0]
    assert steps.claim_or_none(any_database, "w2") is None
    (other,) = steps.submit(any_database)  # others aren't held up
    assert steps.claim(any_database, "w2").job_id == other


def test_the_others_are_let_go_behind_the_cache(any_database: Database) -> None:
    ids = sweep(any_database)
    first = steps.claim(any_database)
    for stage in ("prepare", "cache"):
        reach(any_database, first, stage)
        assert free(any_database, *ids) == [True, False, False]
    reach(any_database, first, "reprogram")
    assert free(any_database, *ids) == [True, True, True]
    assert reasons(any_database, *ids[1:]) == ["no_worker", "no_worker"]
    assert [steps.claim(any_database, w).job_id for w in ("w2", "w3")] == ids[1:]


def test_they_are_let_go_when_no_beat_told_so(any_database: Database) -> None:
    ids = sweep(any_database, 2)
    steps.do(
        any_database, lambda s, c: ledger.trained(s, c, {}, ring=False), steps.claim(any_database)
    )
    assert free(any_database, *ids) == [True, True]


@pytest.mark.parametrize("how", ["fails", "cancelled", "cancelled-waiting", "paused"])
def test_another_takes_the_place_of_one_that_stops(any_database: Database, how: str) -> None:
    ids = sweep(any_database)
    if how == "fails":
        steps.do(any_database, ledger.fail, steps.claim(any_database), FINAL)
    elif how == "cancelled":
        first = steps.claim(any_database)
        steps.ask(any_database, ledger.request_cancel, ids[0])
        steps.do(any_database, ledger.cancelled, first)
    elif how == "cancelled-waiting":
        steps.ask(any_database, ledger.request_cancel, ids[0])
    else:
        steps.ask(any_database, ledger.request_pause, ids[0])
    assert free(any_database, *ids) == [True, True, False]
    assert steps.claim(any_database).job_id == ids[1]
    assert steps.claim_or_none(any_database) is None


def test_one_that_is_tried_again_is_still_waited_for(any_database: Database) -> None:
    ids = sweep(any_database)
    steps.do(any_database, ledger.fail, steps.claim(any_database), PASSING)
    assert free(any_database, *ids) == [True, False, False]
    assert steps.claim_or_none(any_database) is None  # it backs off, and nobody overtakes it


def test_a_paused_one_comes_back_behind_who_took_its_place(any_database: Database) -> None:
    ids = sweep(any_database, 2)
    steps.ask(any_database, ledger.request_pause, ids[0])
    steps.ask(any_database, ledger.request_resume, ids[0])
    assert free(any_database, *ids) == [False, True]
    second = steps.claim(any_database)
    assert (second.job_id, steps.claim_or_none(any_database)) == (ids[1], None)
    reach(any_database, second, "distil")
    assert free(any_database, *ids) == [True, True]
    # Once the views are shown, whoever comes back is free.
    steps.ask(any_database, ledger.request_pause, ids[0])
    steps.ask(any_database, ledger.request_resume, ids[0])
    assert free(any_database, *ids) == [True, True]


def test_a_waiting_one_can_be_stopped_without_harm_to_the_rest(any_database: Database) -> None:
    ids = sweep(any_database, 4)
    steps.ask(any_database, ledger.request_cancel, ids[1])
    steps.ask(any_database, ledger.request_pause, ids[2])
    steps.do(any_database, ledger.fail, steps.claim(any_database), BROKEN)
    assert steps.claim(any_database).job_id == ids[3]  # neither cancelled nor paused
    steps.ask(any_database, ledger.request_resume, ids[2])
    assert free(any_database, ids[2]) == [False]


def test_with_none_in_line_the_paused_are_free(any_database: Database) -> None:
    ids = sweep(any_database, 2)
    steps.ask(any_database, ledger.request_pause, ids[1])
    steps.ask(any_database, ledger.request_cancel, ids[0])
    steps.ask(any_database, ledger.request_resume, ids[1])
    assert steps.claim(any_database).job_id == ids[1]


def test_a_bell_is_rung_once_a_job_waits_for_nobody(any_database: Database) -> None:
    ids = sweep(any_database, 2, ring=True)

    def rung() -> list[str]:
        with any_database.read() as session:
            return [job_id for _, job_id, _ in _owed(session)]

    assert rung() == ids[:1]
    steps.ask(any_database, ledger.request_cancel, ids[0])
    assert rung() == ids  # the first one's is owed still, and harmless
