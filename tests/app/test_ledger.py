"""The ledger: who may change a job, when, and that nobody else can."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import inspect, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db import Database, now
from app.errors import ConflictError
from app.jobs import ledger
from app.jobs.ledger import Claim, LeaseLostError
from app.jobs.states import LEGAL, IllegalMoveError, State, check
from app.models import Dataset, Event, Job, Outbox
from tdmr.errors import Failure
from tests.support import make_dataset

LEASE = 60.0
FINAL = Failure(code="dataset", user_error=True, detail="One class only.")
PASSING = Failure(code="process_died", user_error=False, detail="Killed.", retryable=True)


def submit(database: Database, count: int = 1, **given: Any) -> list[str]:
    dataset_id = make_dataset(database)
    options = {"owner": "ana", "kind": "distil", "dataset_id": dataset_id, "spec": {}}
    options |= {"max_attempts": 3, "ring": False, **given}
    with database.write() as session:
        return [ledger.submit(session, **options).id for _ in range(count)]


def claim(database: Database, worker: str = "w1", lease: float = LEASE, **given: Any) -> Claim:
    with database.write() as session:
        found = ledger.claim(session, worker=worker, lease_seconds=lease, **given)
    assert found is not None
    return found


def claim_or_none(database: Database, **given: Any) -> Claim | None:
    with database.write() as session:
        return ledger.claim(session, worker="w1", lease_seconds=LEASE, **given)


def job(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, job_id)


def log(database: Database, job_id: str) -> list[str]:
    with database.read() as session:
        return [event.type for event in ledger.events(session, job_id, 0, 100)]


def everything(database: Database) -> list[Any]:
    """Every row of the tables that a job's end may touch."""
    with database.read() as session:
        return [
            [{c.key: getattr(row, c.key) for c in inspect(table).columns} for row in rows]
            for table in (Job, Event, Outbox, Dataset)
            for rows in [session.scalars(select(table).order_by(*inspect(table).primary_key))]
        ]


def expire(database: Database, job_id: str) -> None:
    """Let the lease be over, as if time had passed."""
    with database.write() as session:
        past = now(session) - timedelta(seconds=1)
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=past))


def make_due(database: Database, job_id: str) -> None:
    """Let the back-off be over, as if time had passed."""
    with database.write() as session:
        past = now(session) - timedelta(seconds=1)
        session.execute(update(Job).where(Job.id == job_id).values(run_after=past))


# What each call does to a job in each state; None: refused, and nothing changes.
MOVES: dict[str, dict[str, str | None]] = {
    "claim": {"queued": "running"},
    "beat": {"running": "running"},
    "succeed": {"running": "succeeded"},
    "fail": {"running": "failed"},
    "fail_passing": {"running": "queued"},
    "cancelled": {"running": "cancelled"},
    "hand_back": {"running": "queued"},
    "sweep": {"running": "queued"},
    "request_cancel": {"queued": "cancelled", "running": "running"},
}
CALLS: dict[str, Callable[[Session, Claim], Any]] = {
    "claim": lambda s, c: ledger.claim(s, worker="w2", lease_seconds=LEASE, job_id=c.job_id),
    "beat": lambda s, c: ledger.beat(s, c, lease_seconds=LEASE),
    "succeed": lambda s, c: ledger.succeed(s, c, {}),
    "fail": lambda s, c: ledger.fail(s, c, FINAL),
    "fail_passing": lambda s, c: ledger.fail(s, c, PASSING),
    "cancelled": lambda s, c: ledger.cancelled(s, c),
    "hand_back": lambda s, c: ledger.hand_back(s, c),
    "sweep": lambda s, c: ledger.sweep(s),
    "request_cancel": lambda s, c: ledger.request_cancel(s, s.get_one(Job, c.job_id)),
}
REACH: dict[str, str | None] = {
    "queued": "hand_back",
    "running": None,
    "succeeded": "succeed",
    "failed": "fail",
    "cancelled": "cancelled",
}


@pytest.mark.parametrize("state", REACH)
def test_each_call_moves_a_job_as_the_table_says(any_database: Database, state: str) -> None:
    for name, call in CALLS.items():
        submit(any_database)
        held = claim(any_database)
        if reach := REACH[state]:
            with any_database.write() as session:
                CALLS[reach](session, held)
        if state == "running" and name == "sweep":
            expire(any_database, held.job_id)
        before = everything(any_database)
        expected = MOVES[name].get(state)
        try:
            with any_database.write() as session:
                call(session, held)
        except (LeaseLostError, ConflictError):
            assert expected is None, name
        if expected is None:
            assert everything(any_database) == before, name
        else:
            assert job(any_database, held.job_id).state == expected, name
            assert expected == state or (State(state), State(expected)) in LEGAL
        with any_database.write() as session:  # out of the next call's way
            session.execute(update(Job).where(Job.id == held.job_id).values(state="failed"))


def test_moves_outside_the_table_are_refused() -> None:
    for old in State:
        for new in State:
            if (old, new) in LEGAL:
                check(old, new)
            else:
                with pytest.raises(IllegalMoveError):
                    check(old, new)


def drain(url: str, worker: str) -> list[str]:
    """Claim until nothing is left, as a worker of its own would."""
    database = Database(url)
    taken = []
    while True:
        with database.write() as session:
            found = ledger.claim(session, worker=worker, lease_seconds=LEASE)
        if found is None:
            database.close()
            return taken
        assert found.attempt == 1
        taken.append(found.job_id)


def threads() -> Executor:
    return ThreadPoolExecutor(8)


def processes() -> Executor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("kind", [threads, processes])
def test_of_many_claimers_each_job_has_one(
    any_database: Database, any_url: str, kind: Callable[[], Executor]
) -> None:
    ids = submit(any_database, 60)
    with kind() as pool:
        taken = pool.map(drain, [any_url] * 8, [f"w{n}" for n in range(8)])
        assert Counter(i for each in taken for i in each) == Counter(ids)


def test_claims_come_in_the_order_of_the_queue(any_database: Database) -> None:
    ids = submit(any_database, 3)
    with any_database.read() as session:
        places = [ledger.queue_position(session, session.get_one(Job, i)) for i in ids]
    assert places == [1, 2, 3]
    assert [claim(any_database).job_id for _ in ids] == ids
    assert claim_or_none(any_database) is None
    with any_database.read() as session:
        assert ledger.queue_position(session, session.get_one(Job, ids[0])) is None


def test_claim_takes_only_what_was_asked_for(any_database: Database) -> None:
    first, second = submit(any_database, 2)
    assert claim_or_none(any_database, kinds=["ingest"]) is None
    assert claim(any_database, job_id=second).job_id == second
    assert claim_or_none(any_database, job_id=second) is None
    assert claim(any_database, kinds=["distil"]).job_id == first


def test_claim_writes_lease_and_first_heartbeat(any_database: Database) -> None:
    (job_id,) = submit(any_database)
    claim(any_database, "w7")
    row = job(any_database, job_id)
    assert row.heartbeat_at is not None
    assert row.started_at == row.heartbeat_at
    assert row.lease_until == row.heartbeat_at + timedelta(seconds=LEASE)
    assert (row.lease_owner, row.attempt) == ("w7", 1)


def publish(database: Database, claimant: Claim, call: str) -> None:
    """Write something together with the ledger's call, as a worker does with a result."""
    with database.write() as session:
        session.execute(update(Dataset).values(status="invalid"))
        CALLS[call](session, claimant)


@pytest.mark.parametrize("heir", ["w1", "w2"])
def test_a_stale_attempt_commits_nothing(any_database: Database, heir: str) -> None:
    (job_id,) = submit(any_database)
    stale = claim(any_database, "w1")
    expire(any_database, job_id)
    with any_database.write() as session:
        ledger.sweep(session)
    make_due(any_database, job_id)
    current = claim(any_database, heir)
    before = everything(any_database)
    impostor = replace(current, worker="w9")  # the right attempt, from a worker without the lease

    for call in ("beat", "succeed", "fail", "fail_passing", "cancelled", "hand_back"):
        for claimant in (stale, impostor):
            with pytest.raises(LeaseLostError):
                publish(any_database, claimant, call)
            assert everything(any_database) == before
    with any_database.write() as session:
        ledger.succeed(session, current, {"student_id": "stu_1"})
    assert job(any_database, job_id).state == "succeeded"


def test_of_a_finish_and_a_sweep_at_once_one_wins(any_database: Database) -> None:
    """The finish holds its transaction open while the sweep looks for expired leases."""
    (job_id,) = submit(any_database)
    held = claim(any_database)
    expire(any_database, job_id)
    swept: list[ledger.Swept] = []

    def sweep() -> None:
        with any_database.write() as session:
            swept.extend(ledger.sweep(session))

    with any_database.write() as session:
        ledger.succeed(session, held, {})
        other = threading.Thread(target=sweep)
        other.start()
        other.join(0.2)
    other.join()
    assert swept == []
    assert job(any_database, job_id).state == "succeeded"


def test_beat_prolongs_the_lease_and_tells_of_progress(any_database: Database) -> None:
    (job_id,) = submit(any_database)
    held = claim(any_database, lease=1.0)
    line = {"event": "progress", "step": 3, "steps": 9}
    with any_database.write() as session:
        assert ledger.beat(session, held, lease_seconds=LEASE, progress=line) is False
        assert ledger.beat(session, held, lease_seconds=LEASE, warnings=["slow disk"]) is False
    row = job(any_database, job_id)
    assert row.progress == line
    assert row.heartbeat_at is not None
    assert row.lease_until == row.heartbeat_at + timedelta(seconds=LEASE)
    assert log(any_database, job_id) == ["submitted", "started", "progress", "warning"]


def test_cancel_of_a_queued_job_is_at_once(any_database: Database) -> None:
    (job_id,) = submit(any_database)
    with any_database.write() as session:
        ended = ledger.request_cancel(session, session.get_one(Job, job_id))
        assert ended.state == "cancelled"
        assert ended.ended_at is not None
    with any_database.write() as session, pytest.raises(ConflictError, match="cancelled"):
        ledger.request_cancel(session, session.get_one(Job, job_id))


@pytest.mark.parametrize("last", ["cancelled", "fail_passing", "hand_back", "sweep"])
def test_cancel_of_a_running_job_comes_back_in_the_beat(any_database: Database, last: str) -> None:
    """However such a job then leaves its worker, it isn't run again."""
    (job_id,) = submit(any_database)
    held = claim(any_database)
    with any_database.write() as session:
        row = ledger.request_cancel(session, session.get_one(Job, job_id))
        assert row.state == "running"
        ledger.request_cancel(session, row)  # asking twice is one request
    with any_database.write() as session:
        assert ledger.beat(session, held, lease_seconds=LEASE) is True
    expire(any_database, job_id)
    with any_database.write() as session:
        CALLS[last](session, held)
    assert job(any_database, job_id).state == "cancelled"
    assert log(any_database, job_id)[2:] == ["cancel_requested", "cancelled"]


def test_sweep_takes_back_only_what_has_expired(any_database: Database) -> None:
    submit(any_database, 2)
    dead, alive = claim(any_database), claim(any_database)
    expire(any_database, dead.job_id)
    with any_database.write() as session:
        (swept,) = ledger.sweep(session, ring=True)
    assert (swept.job_id, swept.attempt, swept.state) == (dead.job_id, 1, "queued")
    row = job(any_database, dead.job_id)
    assert row.lease_owner is None
    assert row.run_after > row.created_at
    assert claim_or_none(any_database) is None  # it waits
    assert job(any_database, alive.job_id).state == "running"
    with any_database.read() as session:
        assert ledger.queue_position(session, row) is None
        assert session.scalars(select(Outbox.subject_id)).all() == [dead.job_id]


def test_a_job_that_always_dies_is_given_up(any_database: Database) -> None:
    (job_id,) = submit(any_database, max_attempts=3)
    states = []
    for _ in range(3):
        make_due(any_database, job_id)
        claim(any_database)
        expire(any_database, job_id)
        with any_database.write() as session:
            states += [swept.state for swept in ledger.sweep(session)]
    assert states == ["queued", "queued", "failed"]
    row = job(any_database, job_id)
    assert row.failure is not None
    assert Failure(**row.failure).code == "worker_lost"


def test_a_failure_is_retried_while_attempts_are_left(any_database: Database) -> None:
    (job_id,) = submit(any_database, max_attempts=2)
    for expected in ("queued", "failed"):
        make_due(any_database, job_id)
        held = claim(any_database)
        with any_database.write() as session:
            assert ledger.fail(session, held, PASSING) == expected
    assert job(any_database, job_id).failure == PASSING.model_dump(mode="json")


def test_handing_back_costs_no_attempt(any_database: Database) -> None:
    submit(any_database, max_attempts=1)
    for _ in range(3):
        held = claim(any_database)
        with any_database.write() as session:
            assert ledger.hand_back(session, held) == "queued"
    held = claim(any_database)
    assert held.attempt == 4
    with any_database.write() as session:
        assert ledger.fail(session, held, PASSING) == "failed"


def test_backoff_doubles_up_to_a_limit() -> None:
    assert [ledger.backoff(n) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert ledger.backoff(10_000) == ledger.MAX_BACKOFF_SECONDS


def test_an_idempotency_key_is_used_once_per_owner(any_database: Database) -> None:
    submit(any_database, idempotency_key="k")
    submit(any_database, idempotency_key="k", owner="ben")
    with pytest.raises(IntegrityError):
        submit(any_database, idempotency_key="k")


def test_submit_owes_a_bell_only_when_asked(any_database: Database) -> None:
    (rung,) = submit(any_database, ring=True)
    submit(any_database, ring=False)
    with any_database.read() as session:
        assert session.scalars(select(Outbox.subject_id)).all() == [rung]


def test_events_are_numbered_without_gaps_and_paged(any_database: Database) -> None:
    """Two writers at once: the worker's beats and a user's request to cancel."""
    (job_id,) = submit(any_database)
    held = claim(any_database)

    def beats() -> None:
        for step in range(10):
            with any_database.write() as session:
                ledger.beat(session, held, lease_seconds=LEASE, progress={"step": step})

    other = threading.Thread(target=beats)
    other.start()
    with any_database.write() as session:
        ledger.request_cancel(session, session.get_one(Job, job_id))
    other.join()
    with any_database.read() as session:
        found = ledger.events(session, job_id, 0, 100)
        assert [event.seq for event in found] == list(range(1, 14))
        assert [event.at for event in found] == sorted(event.at for event in found)
        assert [event.seq for event in ledger.events(session, job_id, 4, 3)] == [5, 6, 7]
