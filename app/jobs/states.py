"""The states of a job, and the table of every move between them that is legal."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


LEGAL: frozenset[tuple[State, State]] = frozenset(
    {
        (State.QUEUED, State.RUNNING),  # claimed
        (State.QUEUED, State.CANCELLED),  # nobody had started it
        (State.RUNNING, State.QUEUED),  # handed back, swept, or to be tried again
        (State.RUNNING, State.SUCCEEDED),
        (State.RUNNING, State.FAILED),
        (State.RUNNING, State.CANCELLED),
    }
)

ENDED: frozenset[State] = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class IllegalMoveError(Exception):
    """A move that the table doesn't allow: a bug in the caller, never a user's doing."""


def check(old: str, new: State) -> None:
    """Raise IllegalMoveError unless a job may go from `old` to `new`."""
    if (State(old), new) not in LEGAL:
        raise IllegalMoveError(f"a job can't go from {old} to {new}")
