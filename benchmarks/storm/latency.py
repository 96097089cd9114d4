"""How long things take: a job's start, what follows a death, and what an idle worker costs."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from sqlalchemy import select

from app.jobs import ends
from app.models import Event, Worker
from benchmarks.storm import procs, witness
from benchmarks.storm.arena import Arena, Play

SHORT = Play(steps=2, pause=0.01, every=10)


def p99(values: Sequence[float]) -> float | None:
    """The value that 99 % don't exceed; None without values."""
    ordered = sorted(values)
    return round(ordered[math.ceil(0.99 * len(ordered)) - 1], 3) if ordered else None


def starts(arena: Arena, times: int, seed: str) -> float:
    """The median of the seconds from a submission to the start of the job's process.

    One worker, which has nothing else to do; submissions come at random moments.
    """
    chance, found = random.Random(seed), list[float]()
    fleet = arena.fleet(plain=False)
    fleet.keep(1)
    for _ in range(times + 1):
        time.sleep(chance.uniform(0.5, 1.5))
        began = time.time()
        job_id = arena.submit(SHORT)
        arena.settle()
        found.append(_started(arena, job_id) - began)
    return round(median(found[1:]), 3)  # the first finds a worker that is still starting


def _started(arena: Arena, job_id: str) -> float:
    (at,) = [x.at for x in witness.read(arena.witness) if x.what == "start" and x.job == job_id]
    return at


def restarts(arena: Arena) -> dict[str, list[float]]:
    """Seconds from a death to the next claim of the same job: of a worker, and of a process.

    Later deaths in one place wait longer and longer by design; all count as a first one.
    """
    killed = {(kill.job_id, kill.attempt): kill for kill in arena.kills}
    delays: dict[tuple[str, int], float] = {}
    found: dict[str, list[float]] = {"worker": [], "process": []}
    with arena.database.read() as session:
        for event in session.scalars(select(Event).order_by(Event.job_id, Event.seq)):
            attempt = event.data.get("attempt", 0)
            if event.type == "requeued":
                delays[event.job_id, attempt] = event.data["delay"]
            key = (event.job_id, attempt - 1)
            if event.type == "started" and key in killed:
                longer = delays.get(key, 0.0) - ends.backoff(1)
                place = "process" if killed[key].target == "process" else "worker"
                found[place].append(event.at.timestamp() - killed[key].at - longer)
    return found


def idle(arena: Arena, seconds: float) -> dict[str, Any]:
    """What a worker of the product's own costs while nothing is to do."""
    hand = arena.fleet(plain=False).start_product()

    def heard_of() -> bool:
        return arena.ask(lambda s: hand.pid in s.scalars(select(Worker.pid)).all())

    assert arena.until(heard_of), "the worker didn't start"
    time.sleep(3)  # what it does once
    before, began = procs.cpu_seconds(hand.pid), time.monotonic()
    time.sleep(seconds)
    used, took = procs.cpu_seconds(hand.pid) - before, time.monotonic() - began
    found = {
        "cpu_percent": round(100 * used / took, 2),
        "rss_mb": round(procs.rss_mb(hand.pid), 1),
        "torch": procs.maps(hand.pid, "torch"),
    }
    hand.stop()
    return found
