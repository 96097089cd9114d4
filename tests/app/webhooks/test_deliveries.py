"""Deliveries in the database: taken once, fenced, tried on the schedule, disabled, forgotten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from app.db import Database
from app.webhooks import deliveries, service
from app.webhooks.deliveries import KEPT_ATTEMPTS, Claim
from app.webhooks.network import Answer
from app.webhooks.tables import WebhookDelivery
from tests.app.webhooks import owners
from tests.app.webhooks.owners import BROKEN, OK

DELAYS = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]


def attempt(database: Database, delivery_id: str, answer: Answer, seconds: float) -> None:
    """A failure, behind which the next try is planned in so many seconds: exactly."""
    begun = owners.moment(database)
    assert owners.attempt(database, answer) == "pending"
    planned = owners.delivery(database, delivery_id).next_attempt_at - timedelta(seconds=seconds)
    assert begun <= planned <= owners.moment(database)


def due(database: Database, limit: int = 10) -> list[str]:
    with database.read() as session:
        return list(deliveries.due(session, limit))


def test_of_many_senders_one_gets_each_delivery(any_database: Database) -> None:
    made = {owners.owe(any_database, owners.endpoint(any_database)) for _ in range(8)}
    with ThreadPoolExecutor(4) as pool:
        found = [
            each for _ in range(4) for each in pool.map(owners.claim, [any_database] * 4, [2] * 4)
        ]
    taken = [claim.id for claims in found for claim in claims]
    assert sorted(taken) == sorted(made)
    assert due(any_database) == []


def test_every_endpoints_first_comes_before_any_ones_second(any_database: Database) -> None:
    busy, calm = owners.endpoint(any_database), owners.endpoint(any_database)
    first, second, third = (owners.owe(any_database, busy) for _ in range(3))
    late = owners.owe(any_database, calm)
    assert due(any_database) == [first, late, second]
    assert [each.id for each in owners.claim(any_database, 1)] == [first]
    assert due(any_database) == [late, second]
    assert {each.id for each in owners.claim(any_database)} == {late, second}
    assert due(any_database) == []  # the third waits until one of the two is over
    assert owners.delivery(any_database, third).attempt == 0


def test_a_result_counts_for_the_attempt_that_holds_the_delivery(any_database: Database) -> None:
    message = owners.owe(any_database, owners.endpoint(any_database))
    (stale,) = owners.claim(any_database)
    owners.pass_time(any_database, seconds=61)
    (fresh,) = owners.claim(any_database)
    assert (stale.id, stale.attempt, fresh.id, fresh.attempt) == (message, 1, message, 2)
    assert owners.record(any_database, stale, OK) is None
    assert owners.delivery(any_database, message).status == "pending"
    assert owners.record(any_database, fresh, OK) == "delivered"
    assert owners.record(any_database, fresh, BROKEN) is None
    assert owners.delivery(any_database, message).status == "delivered"


def test_a_dead_sender_uses_up_no_try(any_database: Database) -> None:
    message = owners.owe(any_database, owners.endpoint(any_database))
    for _ in range(20):
        assert len(owners.claim(any_database)) == 1
        owners.pass_time(any_database, seconds=61)
    attempt(any_database, message, BROKEN, 5)


def test_the_schedule_to_its_end(any_database: Database) -> None:
    message = owners.owe(any_database, owners.endpoint(any_database))
    for seconds in DELAYS:
        attempt(any_database, message, BROKEN, seconds)
        assert due(any_database) == [] or seconds == 5
        owners.pass_time(any_database, seconds=seconds)
    assert owners.attempt(any_database, BROKEN) == "failed"
    row = owners.delivery(any_database, message)
    assert [each["status_code"] for each in row.attempts] == [500] * 10
    assert row.attempts[0] | {"at": ""} == {
        "at": "",
        "duration_ms": 250.0,
        "status_code": 500,
        "error": "http",
        "answer": "oh",
    }
    assert row.ended_at is not None


@pytest.mark.parametrize(
    ("status", "asked", "seconds"),
    [(429, "60", 60), (503, "3600", 3600), (503, "1", 5), (500, "60", 5), (302, "60", 5)],
)
def test_retry_after_is_respected_where_it_means_something(
    database: Database, status: int, asked: str, seconds: float
) -> None:
    message = owners.owe(database, owners.endpoint(database))
    attempt(database, message, Answer(status=status, error="http", retry_after=asked), seconds)


def test_gone_disables_the_endpoint_and_what_waits_is_kept(database: Database) -> None:
    made = owners.endpoint(database)
    first, second = owners.owe(database, made), owners.owe(database, made)
    (one, _) = owners.claim(database)
    assert owners.record(database, one, Answer(status=410, error="http")) == "failed"
    found = owners.seen(database, made.id)
    assert (found.enabled, found.disabled_reason) == (False, "gone")
    owners.pass_time(database, seconds=61)
    assert due(database) == []
    with database.write() as session:
        service.change(session, "ana", made.id, {"enabled": True})
    assert due(database) == [second]
    assert owners.seen(database, made.id).disabled_reason is None
    assert owners.delivery(database, first).status == "failed"


@pytest.mark.parametrize(("days", "enabled"), [(4.9, True), (5.1, False)])
def test_five_days_of_failures_disable_it(database: Database, days: float, enabled: bool) -> None:
    made = owners.endpoint(database)
    owners.owe(database, made)
    owners.attempt(database, BROKEN)
    owners.pass_time(database, days=days)
    owners.attempt(database, BROKEN)
    found = owners.seen(database, made.id)
    assert (found.enabled, found.disabled_reason) == (enabled, None if enabled else "failing")


def test_one_success_begins_the_five_days_anew(database: Database) -> None:
    made = owners.endpoint(database)
    for answer in (BROKEN, OK, BROKEN):
        owners.owe(database, made)
        owners.pass_time(database, days=3)
        for taken in owners.claim(database):
            owners.record(database, taken, answer)
    assert owners.seen(database, made.id).enabled


def test_a_replay_goes_out_at_once_and_has_the_whole_schedule_again(any_database: Database) -> None:
    made = owners.endpoint(any_database)
    message = owners.owe(any_database, made)
    owners.attempt(any_database, OK)
    assert due(any_database) == []
    with any_database.write() as session:
        service.replay(session, "ana", made.id, message)
    assert due(any_database) == [message]
    attempt(any_database, message, BROKEN, 5)
    row = owners.delivery(any_database, message)
    assert [each["status_code"] for each in row.attempts] == [204, 500]


def test_a_replay_while_it_is_being_sent_isnt_sent_twice_at_once(database: Database) -> None:
    made = owners.endpoint(database)
    message = owners.owe(database, made)
    (taken,) = owners.claim(database)
    with database.write() as session:
        service.replay(session, "ana", made.id, message)
    assert due(database) == []
    assert owners.record(database, taken, OK) == "delivered"


def test_the_log_of_attempts_has_an_end(database: Database) -> None:
    made = owners.endpoint(database)
    message = owners.owe(database, made)
    for _ in range(KEPT_ATTEMPTS + 5):
        owners.attempt(database, OK)
        with database.write() as session:
            service.replay(session, "ana", made.id, message)
    assert len(owners.delivery(database, message).attempts) == KEPT_ATTEMPTS


def test_an_endpoint_that_goes_takes_its_deliveries_along(any_database: Database) -> None:
    made, other = owners.endpoint(any_database), owners.endpoint(any_database)
    owners.owe(any_database, made)
    kept = owners.owe(any_database, other)
    taken = next(each for each in owners.claim(any_database) if each.endpoint_id == made.id)
    with any_database.write() as session:
        service.delete(session, "ana", made.id)
    assert [row.id for row in owners.every(any_database)] == [kept]
    assert owners.record(any_database, taken, OK) is None


def test_what_a_stopping_sender_hands_back_is_due_at_once(any_database: Database) -> None:
    message = owners.owe(any_database, owners.endpoint(any_database))
    claims = owners.claim(any_database)
    with any_database.write() as session:
        deliveries.hand_back(session, claims)
    assert due(any_database) == [message]


def test_old_deliveries_are_forgotten_unless_they_are_still_tried(any_database: Database) -> None:
    def state(to: Any, name: str) -> str:
        message = owners.owe(any_database, to)
        with any_database.write() as session:
            change = update(WebhookDelivery).where(WebhookDelivery.id == message)
            session.execute(change.values(status=name))
        return message

    live, off = owners.endpoint(any_database), owners.endpoint(any_database)
    for name in ("delivered", "failed"):
        state(live, name)
    trying = state(live, "pending")
    state(off, "pending")
    owners.write(any_database, off.id, enabled=False)
    owners.pass_time(any_database, seconds=100)
    recent = state(live, "delivered")
    with any_database.write() as session:
        assert deliveries.forget(session, 90) == 3
    assert [row.id for row in owners.every(any_database)] == [trying, recent]


def test_neither_url_nor_secret_is_in_what_a_log_would_show(database: Database) -> None:
    owners.owe(database, owners.endpoint(database, "https://hooks.example.com/?token=hush"))
    (taken,) = owners.claim(database)
    assert isinstance(taken, Claim)
    assert "hush" not in repr(taken)
    assert taken.secrets[0].secret not in repr(taken)
