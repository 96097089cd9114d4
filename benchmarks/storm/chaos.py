"""The random part: who is killed when. The choices follow from the seed alone."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import now
from app.jobs.states import HELD
from app.models import Job
from benchmarks.storm import procs
from benchmarks.storm.arena import Arena, Kill, Play
from benchmarks.storm.fleet import Fleet, Hand

TARGETS = ("worker", "process", "both")
LOOK_SECONDS = 0.05
STALL_LEASES = 2


@dataclass(frozen=True)
class Choice:
    """What comes next: after so many seconds, the n-th of those that are busy (0 to 1)."""

    delay: float
    target: str
    place: float


@dataclass(frozen=True)
class Busy:
    """An attempt that runs, and its worker."""

    job: Job
    hand: Hand


def choices(seed: str, shortest: float, longest: float) -> Iterator[Choice]:
    """The same for the same seed."""
    chance = random.Random(seed)
    while True:
        delay = chance.uniform(shortest, longest)
        yield Choice(delay, chance.choice(TARGETS), chance.random())


def storm(
    arena: Arena,
    fleet: Fleet,
    *,
    kills: int,
    workers: int,
    seed: str,
    stalls: int = 0,
    told: Callable[[], object] = lambda: None,
) -> None:
    """Kill until it's enough, while jobs keep coming and dead workers are replaced.

    Beside the kills so many workers are stopped (SIGSTOP) until long after their lease.
    """
    chance = random.Random(f"{seed} jobs")
    stalled: list[tuple[float, Hand]] = []
    each = max(1, kills // stalls) if stalls else kills + 1
    for number, choice in zip(range(1, kills + 1), choices(seed, 0.05, 0.5), strict=False):
        done, until = None, time.monotonic() + choice.delay
        while done is None:
            fleet.keep(workers)
            _supply(arena, fleet, workers, chance)
            _wake(stalled)
            time.sleep(LOOK_SECONDS)
            victim = pick(busy(arena, fleet), choice) if time.monotonic() >= until else None
            done = strike(victim, choice.target) if victim else None
        arena.kills.append(done)
        told()
        other = pick(busy(arena, fleet), choice)
        if number % each == 0 and other is not None and other.hand.signal(signal.SIGSTOP):
            lasts = STALL_LEASES * arena.settings.lease_seconds
            stalled.append((time.monotonic() + lasts, other.hand))
    while stalled:
        _wake(stalled)
        time.sleep(LOOK_SECONDS)


def _wake(stalled: list[tuple[float, Hand]]) -> None:
    for due, hand in list(stalled):
        if time.monotonic() >= due:
            hand.signal(signal.SIGCONT)
            stalled.remove((due, hand))


def _supply(arena: Arena, fleet: Fleet, workers: int, chance: random.Random) -> None:
    """Keep all workers but one at work: the free one takes what comes back.

    Jobs that wait for their back-off to end are no work: it grows to minutes with every kill.
    """

    def due(session: Session) -> list[str]:
        waiting = select(Job.id).where(Job.state == "queued", Job.run_after <= now(session))
        return list(session.scalars(waiting))

    for _ in range(workers - 1 - len(arena.ask(due)) - len(busy(arena, fleet))):
        play = Play(chance.randint(8, 30), chance.uniform(0.01, 0.06), chance.randint(2, 6))
        arena.submit(play)


def busy(arena: Arena, fleet: Fleet) -> list[Busy]:
    """The attempts whose worker is alive, by the age of their jobs."""

    def held(session: Session) -> list[Job]:
        return list(session.scalars(select(Job).where(Job.state.in_(HELD)).order_by(Job.id)))

    alive = fleet.alive()
    found = [(job, int((job.lease_owner or "::").split(":")[1] or 0)) for job in arena.ask(held)]
    return [Busy(job, alive[pid]) for job, pid in found if pid in alive]


def pick(found: list[Busy], choice: Choice) -> Busy | None:
    """The victim."""
    return found[int(choice.place * len(found))] if found else None


def strike(victim: Busy, target: str, *, real: bool = False) -> Kill | None:
    """SIGKILL; None when it's too late for that, or too early."""
    job, pid = victim.job, victim.hand.pid
    process = procs.leader_under(pid)
    if target != "worker" and process is None:
        return None
    at = time.time()
    hit = target == "worker" or (process is not None and procs.strike(process, pid))
    if target != "process":
        hit = victim.hand.signal(signal.SIGKILL) and hit
    return Kill(target, job.id, job.attempt, at, real) if hit else None
