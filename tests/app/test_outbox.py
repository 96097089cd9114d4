"""Bells: owed with the change, rung after it, lost never."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import redis
from sqlalchemy import func, select, update

from app.db import Database, now
from app.models import Job, Outbox
from app.outbox import Relay, bell, relay
from app.settings import Settings
from tests.app.jobs import steps
from tests.support import free_port, redis_at, wait_until


def submit(database: Database, **given: Any) -> str:
    (job_id,) = steps.submit(database, ring=True, **given)
    return job_id


def owed(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Outbox)) or 0


def with_broker(settings: Settings, url: str | None) -> Settings:
    return settings.model_copy(update={"broker_url": url})


def test_bells_are_rung_once_and_in_order(
    database: Database, settings: Settings, redis_url: str
) -> None:
    jobs = [submit(database) for _ in range(3)]
    assert relay(database, with_broker(settings, redis_url)) == 3
    with redis.Redis.from_url(redis_url) as client:
        rung = client.lrange("tdmr.default.distil", 0, -1)
    messages = [json.loads(raw) for raw in rung][::-1]
    assert [m["headers"]["task"] for m in messages] == ["tdmr.ring"] * 3
    assert [m["headers"]["argsrepr"] for m in messages] == [f"['{job}']" for job in jobs]
    assert owed(database) == 0
    assert relay(database, with_broker(settings, redis_url)) == 0


def test_a_bell_rings_where_those_listen_who_can_take_the_job(
    database: Database, settings: Settings, redis_url: str
) -> None:
    submit(database, queue_name="big", kind="package")
    submit(database)
    submit(database, devices=2)
    assert relay(database, with_broker(settings, redis_url)) == 3
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen(bell("big", "package")) == client.llen("tdmr.big.package") == 1
        assert client.llen(bell("default", "distil")) == 1
        two = bell("default", "distil", 2)
        assert client.llen(two) == client.llen("tdmr.default.distil.2") == 1


def test_a_job_that_waits_is_rung_when_due(
    database: Database, settings: Settings, redis_url: str
) -> None:
    job_id = submit(database)
    with database.write() as session:
        later = now(session) + timedelta(hours=1)
        session.execute(update(Job).where(Job.id == job_id).values(run_after=later))
    assert relay(database, with_broker(settings, redis_url)) == 0
    assert owed(database) == 1


def test_without_its_broker_nothing_is_lost_and_nobody_waits(
    database: Database, settings: Settings, redis_url: str
) -> None:
    for _ in range(5):
        submit(database)
    down = with_broker(settings, f"redis://127.0.0.1:{free_port()}/0")
    begun = time.monotonic()
    assert relay(database, down) == 0
    assert time.monotonic() - begun < 30
    assert owed(database) == 5
    assert relay(database, with_broker(settings, redis_url)) == 5


def test_a_broker_that_comes_back_gets_what_is_owed(database: Database, settings: Settings) -> None:
    port = free_port()
    flaky = with_broker(settings, f"redis://127.0.0.1:{port}/0")
    with redis_at(port):
        submit(database)
        assert relay(database, flaky) == 1
    submit(database)
    assert relay(database, flaky) == 0
    with redis_at(port):
        submit(database)
        wait_until(lambda: relay(database, flaky) == 2)


def test_the_relay_rings_when_nudged(
    database: Database, settings: Settings, redis_url: str
) -> None:
    bells = Relay(database, with_broker(settings, redis_url), interval=60)
    bells.start()
    time.sleep(0.1)
    submit(database)
    bells.nudge()
    wait_until(lambda: owed(database) == 0)
    bells.stop()


def test_without_a_broker_no_relay_runs(database: Database, settings: Settings) -> None:
    submit(database)
    bells = Relay(database, with_broker(settings, None))
    bells.start()
    bells.nudge()
    bells.stop()
    assert relay(database, with_broker(settings, None)) == 0
    assert owed(database) == 1
