"""The states of a job, and the table of every move between them that is legal."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"  # runs until its checkpoint is safe
    PAUSED = "paused"
    PACKAGING = "packaging"  # trained and stored; a job of its own makes the bundle
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


LEGAL: frozenset[tuple[State, State]] = frozenset(
    {
        (State.QUEUED, State.RUNNING),  # claimed
        (State.QUEUED, State.PAUSED),
        (State.QUEUED, State.CANCELLED),  # nobody had started it
        (State.RUNNING, State.QUEUED),  # handed back, swept, or to be tried again
        (State.RUNNING, State.PAUSING),
        (State.PAUSING, State.PAUSED),  # also when its worker died: nothing of it runs
        (State.PAUSED, State.QUEUED),  # resumed
        (State.PAUSED, State.CANCELLED),
        *((held, State.PACKAGING) for held in (State.RUNNING, State.PAUSING)),
        *((held, State.SUCCEEDED) for held in (State.RUNNING, State.PAUSING)),
        *((held, State.FAILED) for held in (State.RUNNING, State.PAUSING)),
        *((held, State.CANCELLED) for held in (State.RUNNING, State.PAUSING)),
        (State.PACKAGING, State.SUCCEEDED),
        (State.PACKAGING, State.FAILED),
    }
)

ENDED: frozenset[State] = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
HELD: frozenset[State] = frozenset({State.RUNNING, State.PAUSING})  # a worker has its lease


class IllegalMoveError(Exception):
    """A move that the table doesn't allow: a bug in the caller, never a user's doing."""


def check(old: str, new: State) -> None:
    """Raise IllegalMoveError unless a job may go from `old` to `new`."""
    if (State(old), new) not in LEGAL:
        raise IllegalMoveError(f"a job can't go from {old} to {new}")
