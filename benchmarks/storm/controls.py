"""The storm with a guard switched off: each must be noticed, or the storm proves nothing."""

from __future__ import annotations

from benchmarks.storm import chaos, outages, scenarios
from benchmarks.storm.arena import Arena
from benchmarks.storm.row import Row, conclude
from benchmarks.storm.services import Redis

KILLS, WORKERS = 4, 3
# The figure that has to catch each: others may break too.
CAUGHT_BY = {"fencing": "stale_writes", "lease": "early_sweeps", "outbox": "unfinished"}
LITTLE = 10.0  # patience with what isn't going to end


def fencing(arena: Arena) -> Row:
    """Workers that were stopped past their leases come back, and nothing keeps them silent."""
    return scenarios.stalled(arena, arena.patience)


def lease(arena: Arena, seed: str) -> Row:
    """A storm as any other, but that leases aren't waited for."""
    arena.patience = LITTLE
    chaos.storm(arena, arena.fleet(plain=False), kills=KILLS, workers=WORKERS, seed=seed)
    return conclude(arena)


def outbox(arena: Arena, broker: Redis) -> Row:
    """Redis is away while jobs are submitted, and nothing remembers that a bell was owed."""
    arena.patience = LITTLE
    return outages.broker_killed(arena, broker, 1.0, LITTLE)


def caught(guard: str, row: Row) -> bool:
    """Whether the verdict noticed that the guard was off."""
    return row.verdict.figures[CAUGHT_BY[guard]] > 0
