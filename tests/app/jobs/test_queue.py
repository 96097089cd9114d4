"""The queue: whose turn it is, what place a job has, and what it waits for."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from app.db import Database, now
from app.jobs import ledger, moves, queue
from app.jobs.queue import Place
from app.models import Job
from tests.app.jobs import steps
from tests.app.jobs.steps import PASSING
from tests.app.jobs.test_fleet import report
from tests.support import make_dataset

PATIENCE = 60.0


def order(database: Database, **given: object) -> list[str]:
    """The jobs in the order in which they are claimed."""
    taken = []
    while (found := steps.claim_or_none(database, **given)) is not None:  # type: ignore[arg-type]  # what is given is meant to vary
        taken.append(found.job_id)
    return taken


def order_seen(database: Database, **given: Any) -> str:
    """The job that would be claimed next."""
    with database.read() as session:
        found = moves.claim(session, worker="w", lease_seconds=60, **given)
    assert found is not None
    return found.job_id


def places(database: Database, *ids: str) -> list[Place | None]:
    with database.read() as session:
        jobs = [session.get_one(Job, job_id) for job_id in ids]
        found = queue.places(session, jobs, PATIENCE)
    return [found.get(job_id) for job_id in ids]


def positions(database: Database, *ids: str) -> list[int | None]:
    return [place.position if place else None for place in places(database, *ids)]


def test_an_owners_jobs_come_oldest_first(any_database: Database) -> None:
    ids = steps.submit(any_database, 3)
    assert positions(any_database, *ids) == [1, 2, 3]
    assert order(any_database) == ids
    assert positions(any_database, *ids) == [None, None, None]


def test_a_training_waits_for_a_worker_with_as_many_devices(any_database: Database) -> None:
    (four,), (two,), (one,) = (steps.submit(any_database, devices=n) for n in (4, 2, 1))
    report(any_database, "w1", devices=2)
    reasons = [place.reason if place else None for place in places(any_database, four, two, one)]
    assert reasons == ["no_worker", "behind_others", "behind_others"]
    for queues in (None, ["default"]):  # each way to the next one
        assert order_seen(any_database, queues=queues, devices=1) == one
        assert order_seen(any_database, queues=queues, devices=2) == two
        assert order_seen(any_database, queues=queues, devices=8) == four
    assert order(any_database, devices=1) == [one]
    with any_database.read() as session:
        assert not moves.is_any(session, None, None, 1)
        assert moves.is_any(session, None, None, 2)
    assert order(any_database, devices=2) == [two]
    assert order(any_database, devices=4) == [four]


def test_ten_jobs_of_one_owner_dont_make_anothers_first_wait(any_database: Database) -> None:
    many = steps.submit(any_database, 10, owner="ana")
    (one,) = steps.submit(any_database, owner="ben")
    assert positions(any_database, one, *many[:3]) == [2, 1, 3, 4]
    assert order(any_database) == [many[0], one, *many[1:]]


def test_what_an_owner_has_running_counts(any_database: Database) -> None:
    steps.submit(any_database, 2, owner="ana")
    held = [steps.claim(any_database), steps.claim(any_database)]
    ana = steps.submit(any_database, 2, owner="ana")
    ben = steps.submit(any_database, 3, owner="ben")
    assert positions(any_database, *ana, *ben) == [3, 5, 1, 2, 4]
    steps.ask(any_database, ledger.request_pause, held[0].job_id)  # it still has its device
    assert positions(any_database, *ana, *ben) == [3, 5, 1, 2, 4]
    steps.do(any_database, ledger.paused, held[0])
    steps.do(any_database, ledger.succeed, held[1], {})
    assert positions(any_database, *ana, *ben) == [1, 3, 2, 4, 5]


def test_priority_orders_an_owners_own_jobs_only(any_database: Database) -> None:
    (ana,) = steps.submit(any_database, owner="ana", priority=0)
    (low,) = steps.submit(any_database, owner="ben", priority=-100)
    (high,) = steps.submit(any_database, owner="ben", priority=100)
    assert order(any_database) == [ana, high, low]


def test_work_of_seconds_goes_before_trainings(any_database: Database) -> None:
    (training,) = steps.submit(any_database, owner="ben", priority=100)
    checks = steps.submit(any_database, 3, owner="ana", kind="ingest")
    (package,) = steps.submit(any_database, owner="ana", kind="package")
    assert order(any_database) == [*checks, package, training]


def test_short_work_counts_against_nobody(any_database: Database) -> None:
    steps.submit(any_database, 2, owner="ana", kind="ingest")
    assert len(order(any_database)) == 2
    (ana,) = steps.submit(any_database, owner="ana")
    (ben,) = steps.submit(any_database, owner="ben")
    assert order(any_database) == [ana, ben]


def test_places_are_counted_within_a_queue(any_database: Database) -> None:
    big = steps.submit(any_database, 2, queue_name="big", owner="ana")
    (small,) = steps.submit(any_database, owner="ben")
    assert positions(any_database, *big, small) == [1, 2, 1]


def test_a_waiting_job_tells_what_it_waits_for(any_database: Database) -> None:
    ids = steps.submit(any_database, 2)
    assert places(any_database, *ids) == [Place(1, "no_worker"), Place(2, "no_worker")]
    report(any_database, "w1", queues=["big"], kinds=["distil"])
    report(any_database, "w2", queues=["default"], kinds=["ingest", "package"])
    assert places(any_database, *ids) == [Place(1, "no_worker"), Place(2, "no_worker")]
    report(any_database, "w3")
    assert places(any_database, *ids) == [Place(1, "next"), Place(2, "behind_others")]
    steps.pass_time(any_database, PATIENCE + 1)
    assert places(any_database, *ids) == [Place(1, "no_worker"), Place(2, "no_worker")]


def test_a_job_that_waits_out_a_failure_has_no_place(any_database: Database) -> None:
    report(any_database)
    steps.submit(any_database)
    held = steps.claim(any_database)
    (other,) = steps.submit(any_database)
    steps.do(any_database, ledger.fail, held, PASSING)
    steps.put_off(any_database, held.job_id)
    assert places(any_database, held.job_id, other) == [
        Place(None, "backing_off"),
        Place(1, "next"),
    ]
    steps.make_due(any_database, held.job_id)
    assert {each.reason for each in places(any_database, held.job_id, other) if each} == {
        *("next", "behind_others"),
    }


def test_only_queued_jobs_have_a_place(any_database: Database) -> None:
    held = steps.claimed(any_database)
    (paused,) = steps.submit(any_database)
    steps.ask(any_database, ledger.request_pause, paused)
    assert places(any_database, held.job_id, paused) == [None, None]


@dataclass(frozen=True)
class Order:
    """A job to submit; `running` ones are claimed before the others come."""

    owner: str
    kind: str
    queue_name: str
    priority: int
    running: bool


ORDERS = st.lists(
    st.builds(
        Order,
        owner=st.sampled_from("abc"),
        kind=st.sampled_from(["distil", "distil", "distil", "ingest", "package"]),
        queue_name=st.sampled_from(["default", "big"]),
        priority=st.integers(-1, 1),
        running=st.booleans(),
    ),
    min_size=1,
    max_size=12,
)
FEW = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def make(database: Database, orders: list[Order]) -> tuple[dict[str, Order], Counter[str]]:
    """The waiting jobs, oldest first, and how many trainings each owner has running."""
    steps.clear(database)
    waiting, running, dataset_id = {}, Counter[str](), steps.make_dataset(database)
    for each in sorted(orders, key=lambda order: not order.running):
        terms = {"queue_name": each.queue_name, "priority": each.priority}
        (job_id,) = steps.submit(
            database, owner=each.owner, kind=each.kind, dataset_id=dataset_id, **terms
        )
        if each.running:
            steps.claim(database)
            running[each.owner] += each.kind == "distil"
        else:
            waiting[job_id] = each
    return waiting, running


def one_by_one(waiting: dict[str, Order], running: Counter[str]) -> list[str]:
    """Who is claimed when: the next training is of the owner who has the fewest running."""
    age = {job_id: place for place, job_id in enumerate(waiting)}
    short = [job_id for job_id in waiting if waiting[job_id].kind != "distil"]
    long, busy, taken = [i for i in waiting if i not in short], Counter(running), []
    while long:
        first = {
            waiting[i].owner: i for i in sorted(long, key=lambda i: (waiting[i].priority, -age[i]))
        }
        best = min(first.values(), key=lambda i: (busy[waiting[i].owner], age[i]))
        busy[waiting[best].owner] += 1
        long.remove(best)
        taken.append(best)
    return short + taken


@given(orders=ORDERS)
@FEW
def test_jobs_are_claimed_in_turns(any_database: Database, orders: list[Order]) -> None:
    waiting, running = make(any_database, orders)
    assert order(any_database) == one_by_one(waiting, running)


@given(orders=ORDERS)
@FEW
def test_a_place_says_when_a_job_is_claimed(any_database: Database, orders: list[Order]) -> None:
    """By workers of its queue that take jobs of its kind, while nobody takes others."""
    waiting, _ = make(any_database, orders)
    for kind in ("distil", "ingest", "package"):
        for name in ("default", "big"):
            told = dict(zip(waiting, positions(any_database, *waiting), strict=True))
            taken = order(any_database, kinds=[kind], queues=[name])
            assert [told[job_id] for job_id in taken] == list(range(1, len(taken) + 1))


def _scattered(database: Database, seed: int) -> None:
    """Jobs of several owners, kinds, queues and priorities; some aren't due, or wait for others."""
    draw = random.Random(seed)
    dataset = make_dataset(database)
    with database.write() as session:
        moment = now(session)
        for _ in range(60):
            job = moves.submit(
                session,
                owner=draw.choice(["ana", "bob", "cai", "dan"]),
                kind="distil" if draw.random() < 0.8 else "ingest",
                dataset_id=dataset,
                spec={},
                max_attempts=3,
                ring=False,
                queue_name=draw.choice(["default", "default", "gpu"]),
                priority=draw.choice([0, 0, 5]),
                waits_for="job_first" if draw.random() < 0.1 else None,
            )
            job.run_after = moment + timedelta(seconds=draw.randrange(-1000, 200))


@pytest.mark.parametrize(
    ("queues", "kinds", "crowd"),
    [
        (["default"], None, 500),
        (["default"], ["distil"], 500),
        (["gpu"], ["ingest", "distil", "package"], 500),
        (["default"], ["ingest", "model"], 500),
        (["default", "gpu"], ["distil", "ingest"], 500),
        (["default"], ["distil"], 3),  # more owners than that: all who wait are ranked
    ],
)
def test_each_way_to_the_next_job_finds_whom_the_ranking_says(
    any_database: Database,
    monkeypatch: pytest.MonkeyPatch,
    queues: list[str],
    kinds: list[str] | None,
    crowd: int,
) -> None:
    monkeypatch.setattr(queue, "CROWD", crowd)
    moves._takes.cache_clear()
    _scattered(any_database, seed=len(queues) + crowd)
    order, quick = [], 0
    while True:
        with any_database.read() as session:
            moment = now(session)
            ranks = queue.due(moment, queues, kinds)
            first = session.scalar(select(ranks.c.id).where(ranks.c.position == 1))
            ways = queue.nexts(queues, kinds)
            said = [
                session.scalar(select(way), {"moment": moment, "at_most_devices": 1})
                for way in ways
            ]
        assert said[-1] == first
        assert said[0] in (first, None)
        quick += said[0] is not None
        found = steps.claim_or_none(any_database, queues=queues, kinds=kinds)
        assert (found and found.job_id) == first
        if found is None:
            break
        order.append(found.job_id)
    assert len(order) > 3
    moves._takes.cache_clear()
    only_ranked = len(queues) > 1  # where a worker takes from several
    assert quick == len(order) or (crowd == 3 and 0 < quick < len(order)) or only_ranked


def test_a_job_that_another_is_just_taking_is_passed_over(postgres_copy: str) -> None:
    database = Database(postgres_copy)
    ids = steps.submit(database, 2)
    taken = select(Job.id).where(Job.id == ids[0]).with_for_update()
    with database.write() as session:
        assert session.scalar(taken) == ids[0]  # its owner's first: the quick way finds nobody
        assert steps.claim(database, queues=["default"]).job_id == ids[1]
    assert steps.claim(database, queues=["default"]).job_id == ids[0]
    database.close()
