"""What a storm consists of, in full and at the size of a test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Sizes; seconds unless said otherwise. Nothing that is promised depends on them."""

    kills: int = 1000  # of all, `real` included
    real: int = 50  # of trainings that are no stand-ins
    seed: str = "0"
    lease: float = 3.0  # the default is 60
    workers: int = 6  # of each arena that is stormed
    stalls: int = 20  # workers that are stopped past their leases, in each
    lanes: int = 3  # scenarios at once, beside the storm
    away: float = 60.0  # for which Redis is cut off
    restarts: int = 3  # of PostgreSQL, and locks of SQLite
    cancels: int = 60
    cancels_at_once: int = 6
    starts: int = 20
    idle: float = 30.0
    real_points: bool = True  # whether trainings die at their own failpoints too
    gone: float = 10.0  # the most that a stale process may take
    cancel: float = 30.0  # the most that a cancel may take
    again: float = 60.0  # the most that it may take until bells are heard again
    alone: bool = True  # whether what is measured in seconds has the machine for itself
    idle_percent: float = 1.0  # the most CPU that an idle worker may take


# A test mustn't fail because its machine is slow: what may be expected of time is little.
QUICK = Plan(
    kills=50,
    real=5,
    lease=6.0,
    workers=4,
    stalls=1,
    lanes=3,
    away=5.0,
    restarts=1,
    cancels=3,
    cancels_at_once=3,
    starts=5,
    idle=10.0,
    real_points=False,
    gone=60.0,
    cancel=120.0,
    again=300.0,
    alone=False,
    idle_percent=5.0,
)
