"""Claims: one winner each, and nothing for whoever lost its lease."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from app import migrate
from app.db import Database
from app.jobs import ledger, log, moves
from app.jobs.claims import Claim, LeaseLostError, Orders, Swept
from app.models import Dataset, Job
from tests.app.jobs import steps
from tests.app.jobs.steps import LEASE
from tests.app.jobs.test_moves import CALLS

OF_A_CLAIM = (
    *("beat", "orders", "save_checkpoint", "trained", "succeed", "fail", "fail, passing"),
    *("fail, damaged", "cancelled", "paused", "budget_spent", "hand_back", "put_off"),
)


def drain(url: str, worker: str) -> list[str]:
    """Claim until nothing is left, as a worker of its own would."""
    database = Database(url)
    taken = []
    while (found := steps.claim_or_none(database, worker)) is not None:
        assert found.attempt == 1
        taken.append(found.job_id)
    database.close()
    return taken


def threads() -> Executor:
    return ThreadPoolExecutor(8)


def processes() -> Executor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("kind", [threads, processes])
def test_of_many_claimers_each_job_has_one(
    any_database: Database, kind: Callable[[], Executor]
) -> None:
    ids = steps.submit(any_database, 60)
    url = any_database.engine.url.render_as_string(hide_password=False)
    with kind() as pool:
        taken = pool.map(drain, [url] * 8, [f"w{n}" for n in range(8)])
        assert Counter(i for each in taken for i in each) == Counter(ids)


def test_claimers_in_open_transactions_dont_wait_for_each_other(postgres_schema: str) -> None:
    """Neither sees what the other has taken: its row is locked, so it takes the next one."""
    migrate.upgrade(postgres_schema)
    database = Database(postgres_schema)
    first, second = steps.submit(database, 2)
    with database.write() as one:
        mine = moves.claim(one, worker="w1", lease_seconds=LEASE)
        theirs = steps.claim_or_none(database, "w2")
        assert steps.claim_or_none(database, "w3") is None
    assert mine is not None
    assert theirs is not None
    assert {mine.job_id, theirs.job_id} == {first, second}
    database.close()


def test_claim_takes_only_what_was_asked_for(any_database: Database) -> None:
    (big,) = steps.submit(any_database, queue_name="big")
    (small,) = steps.submit(any_database)
    assert steps.claim_or_none(any_database, kinds=["ingest", "package"]) is None
    assert steps.claim_or_none(any_database, queues=["other"]) is None
    assert steps.claim_or_none(any_database, queues=["default"], kinds=["ingest"]) is None
    assert steps.claim(any_database, queues=["default"], kinds=["distil"]).job_id == small
    assert steps.claim_or_none(any_database, queues=["default"]) is None
    assert steps.claim(any_database, kinds=["distil"]).job_id == big


def test_a_job_isnt_claimed_before_it_is_due(any_database: Database) -> None:
    (job_id,) = steps.submit(any_database)
    steps.put_off(any_database, job_id)
    assert steps.claim_or_none(any_database) is None
    steps.make_due(any_database, job_id)
    assert steps.claim(any_database).job_id == job_id


def test_claim_writes_lease_and_first_heartbeat(any_database: Database) -> None:
    held = steps.claimed(any_database)
    row = steps.job(any_database, held.job_id)
    assert row.heartbeat_at is not None
    assert row.started_at == row.claimed_at == row.heartbeat_at
    assert row.lease_until == row.heartbeat_at + timedelta(seconds=LEASE)
    assert (row.lease_owner, row.attempt, row.strikes) == ("w1", 1, 0)


def test_claim_gives_what_the_job_is(any_database: Database) -> None:
    given = {"spec": {"student": "s"}, "checkpoint": steps.student().model_dump(mode="json")}
    held = steps.claimed(any_database, owner="ben", **given)
    assert (held.kind, held.owner, held.attempt, held.worker) == ("distil", "ben", 1, "w1")
    assert (held.spec, held.checkpoint, held.parent_id) == (*given.values(), None)


def test_the_first_start_stays_the_start(any_database: Database) -> None:
    held = steps.claimed(any_database)
    started = steps.job(any_database, held.job_id).started_at
    steps.do(any_database, ledger.hand_back, held)
    steps.claim(any_database, "w2")
    row = steps.job(any_database, held.job_id)
    assert row.started_at == started
    assert row.claimed_at is not None
    assert started is not None
    assert row.claimed_at > started


def publish(database: Database, claimant: Claim, call: str) -> None:
    """Write something together with the ledger's call, as a worker does with a result."""
    with database.write() as session:
        session.execute(update(Dataset).values(status="invalid"))
        CALLS[call](session, claimant)


@pytest.mark.parametrize("heir", ["w1", "w2"])
def test_a_stale_attempt_commits_nothing(any_database: Database, heir: str) -> None:
    stale = steps.claimed(any_database, max_seconds=100.0)
    steps.die(any_database, stale)
    current = steps.claim(any_database, heir)
    before = steps.everything(any_database)
    impostor = replace(current, worker="w9")  # the right attempt, from a worker without the lease
    for call in OF_A_CLAIM:
        for claimant in (stale, impostor):
            with pytest.raises(LeaseLostError):
                publish(any_database, claimant, call)
            assert steps.everything(any_database) == before
    steps.do(any_database, ledger.succeed, current, {"student_id": "stu_1"})
    assert steps.job(any_database, current.job_id).state == "succeeded"


def test_of_a_finish_and_a_sweep_at_once_one_wins(any_database: Database) -> None:
    """The finish holds its transaction open while the sweep looks for expired leases."""
    held = steps.claimed(any_database)
    steps.expire(any_database, held.job_id)
    swept: list[Swept] = []
    other = threading.Thread(target=lambda: swept.extend(steps.sweep(any_database)))
    with any_database.write() as session:
        ledger.succeed(session, held, {})
        other.start()
        other.join(0.2)
    other.join()
    assert swept == []
    assert steps.job(any_database, held.job_id).state == "succeeded"


def test_beat_prolongs_the_lease_and_tells_of_progress(any_database: Database) -> None:
    steps.submit(any_database)
    held = steps.claim(any_database, lease=1.0)
    line = {"event": "progress", "step": 3, "steps": 9}
    assert steps.beat(any_database, held, progress=line) == Orders()
    assert steps.beat(any_database, held, warnings=["slow disk"]) == Orders()
    row = steps.job(any_database, held.job_id)
    assert row.progress == line
    assert row.heartbeat_at is not None
    assert row.lease_until == row.heartbeat_at + timedelta(seconds=LEASE)
    told = steps.events(any_database, held.job_id)[2:]
    assert [(each.type, each.data) for each in told] == [
        ("progress", line),
        ("warning", {"message": "slow disk"}),
    ]


def test_a_new_attempt_has_no_progress_yet(any_database: Database) -> None:
    held = steps.claimed(any_database)
    steps.beat(any_database, held, progress={"step": 3})
    steps.do(any_database, ledger.hand_back, held)
    assert steps.job(any_database, held.job_id).progress is None


def test_sweep_takes_back_only_what_has_expired(any_database: Database) -> None:
    steps.submit(any_database, 2)
    dead, alive = steps.claim(any_database), steps.claim(any_database)
    steps.expire(any_database, dead.job_id)
    (swept,) = steps.sweep(any_database, ring=True)
    assert (swept.job_id, swept.attempt, swept.state) == (dead.job_id, 1, "queued")
    assert swept.failure is None
    row = steps.job(any_database, dead.job_id)
    assert (row.lease_owner, row.lease_until) == (None, None)
    assert row.heartbeat_at is not None
    assert row.run_after > row.heartbeat_at + timedelta(seconds=1)
    assert steps.job(any_database, alive.job_id).state == "running"
    assert steps.bells(any_database) == [("tdmr.default.distil", dead.job_id)]
    assert steps.sweep(any_database) == []


def test_an_idempotency_key_is_used_once_per_owner(any_database: Database) -> None:
    steps.submit(any_database, idempotency_key="k")
    steps.submit(any_database, idempotency_key="k", owner="ben")
    with pytest.raises(IntegrityError):
        steps.submit(any_database, idempotency_key="k")


def test_submit_owes_a_bell_of_its_queue_only_when_asked(any_database: Database) -> None:
    (rung,) = steps.submit(any_database, ring=True, queue_name="big")
    steps.submit(any_database, ring=False)
    assert steps.bells(any_database) == [("tdmr.big.distil", rung)]


def test_events_are_numbered_without_gaps_and_paged(any_database: Database) -> None:
    """Two writers at once: the worker's beats and a user's request to cancel."""
    held = steps.claimed(any_database)

    def beats() -> None:
        for step in range(10):
            steps.beat(any_database, held, progress={"step": step})

    other = threading.Thread(target=beats)
    other.start()
    steps.ask(any_database, ledger.request_cancel, held.job_id)
    other.join()
    found = steps.events(any_database, held.job_id)
    assert [event.seq for event in found] == list(range(1, 14))
    assert [event.at for event in found] == sorted(event.at for event in found)
    with any_database.read() as session:
        assert [event.seq for event in log.read(session, held.job_id, 4, 3)] == [5, 6, 7]
        assert session.get_one(Job, held.job_id).cancel_requested_at is not None
