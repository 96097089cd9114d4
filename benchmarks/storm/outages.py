"""What strikes on purpose: the broker and the database."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from app.jobs.states import ENDED
from benchmarks.storm.arena import Arena, Play, until
from benchmarks.storm.row import Row, conclude
from benchmarks.storm.services import Cable, Postgres, Redis

LONGER = Play(steps=80, pause=0.05, every=10)
WORKERS = 3
NEVER = 1e6  # poll_seconds of an arena in which only bells start jobs


def broker_away(
    arena: Arena,
    broker: Redis,
    leave: Callable[[], None],
    come_back: Callable[[], None],
    seconds: float,
    bound: float,
) -> Row:
    """The broker is away for a while: what runs goes on, and what comes is done afterwards.

    To be used in an arena without polling, so that what is done was heard of by bells.
    """
    fleet = arena.fleet(plain=False)
    fleet.keep(WORKERS)
    assert until(lambda: broker.listeners() == WORKERS)  # and with their first look behind them
    runs = [arena.submit(LONGER) for _ in range(2)]
    assert arena.until(lambda: all(arena.job(each).state != "queued" for each in runs))
    leave()
    owed = [arena.submit(Play()) for _ in range(4)]
    time.sleep(seconds)
    early = [each for each in owed if arena.job(each).state != "queued"]
    come_back()
    began = time.monotonic()
    heard = arena.until(lambda: any(arena.job(each).state != "queued" for each in owed))
    took = time.monotonic() - began
    row = conclude(arena, away_seconds=seconds, again_seconds=round(took, 2))
    row.expect(not early, "a job began without a bell")
    row.expect(heard and took < bound, f"no bell was heard for {took:.0f} s")
    return row


def broker_killed(arena: Arena, broker: Redis, seconds: float, bound: float) -> Row:
    """Redis is killed with all that it knows, and started again."""
    return broker_away(arena, broker, broker.kill, broker.start, seconds, bound)


def broker_cut_off(arena: Arena, broker: Redis, cable: Cable, seconds: float, bound: float) -> Row:
    """No packet comes through between Redis and everybody else."""
    return broker_away(arena, broker, cable.cut, cable.mend, seconds, bound)


def broker_flushed(arena: Arena, broker: Redis) -> Row:
    """Redis forgets the bells of jobs that wait: the slow poll finds them."""
    fleet = arena.fleet(plain=False)
    runs = arena.submit(LONGER)
    fleet.keep(1)
    assert arena.until(lambda: arena.job(runs).state == "running")
    lost = [arena.submit(Play(steps=4)) for _ in range(6)]
    arena.until(lambda: not arena.owed())
    broker.flush()
    began = time.monotonic()
    arena.until(lambda: all(arena.job(each).state in ENDED for each in lost))
    return conclude(arena, all_done_seconds=round(time.monotonic() - began, 2))


def database_restarted(arena: Arena, server: Postgres, times: int, seconds: float) -> Row:
    """PostgreSQL stops at once, as in a crash, and comes back; work goes on."""

    def strike() -> None:
        server.kill()
        time.sleep(seconds)
        server.start()

    return _database_away(arena, strike, times)


def database_locked(arena: Arena, times: int, seconds: float) -> Row:
    """Somebody holds SQLite's only write lock for longer than a lease."""

    def strike() -> None:
        connection = sqlite3.connect(arena.settings.data_dir / "tdmr.db", isolation_level=None)
        connection.execute("PRAGMA busy_timeout=60000")
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)
        connection.rollback()
        connection.close()

    return _database_away(arena, strike, times)


def _database_away(arena: Arena, strike: Callable[[], None], times: int) -> Row:
    fleet = arena.fleet(plain=False)
    fleet.keep(3)
    for _ in range(6):
        arena.submit(LONGER)
    for _ in range(times):
        arena.until(lambda: any(arena.job(each).state == "running" for each in arena.orders))
        time.sleep(1)
        strike()
    return conclude(arena, times=times)
