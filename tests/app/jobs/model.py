"""What must become of jobs, told without a database: the oracle of the ledger's machine.

Time is whole seconds, and a tick that orders what happens within one of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count

LEASE = 60
HELD = ("running", "pausing")
ENDED = ("succeeded", "failed", "cancelled")
Moment = tuple[int, int]
Place = tuple[str, int]


class LostError(Exception):
    """The attempt no longer holds its job."""


class RefusedError(Exception):
    """The job's state doesn't allow what was asked for."""


@dataclass(frozen=True)
class Token:
    """What a worker has in hand from its claim on."""

    job: str
    attempt: int
    worker: str


@dataclass(frozen=True)
class Trouble:
    """The kind of a failure."""

    retryable: bool = False
    user_error: bool = False
    damaged: bool = False


LOST = Trouble(retryable=True)


@dataclass
class Row:
    """A job as it must be."""

    owner: str
    kind: str
    limit: int
    due: Moment
    budget: int | None = None
    parent: str | None = None
    state: str = "queued"
    attempt: int = 0
    strikes: int = 0
    worker: str | None = None
    lease: Moment = (0, 0)
    claimed: int = 0
    heard: int = 0
    spent: int = 0
    cancel: bool = False
    place: Place | None = None
    stages: frozenset[str] = frozenset()
    furthest: dict[str, int] = field(default_factory=dict)


class Model:
    """Every job, by its id; a package goes by the name of its parent."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.now = 0
        self._ticks = count()

    def _moment(self, delay: int = 0) -> Moment:
        return self.now + delay, next(self._ticks)

    def submit(
        self, job: str, *, owner: str, kind: str, max_attempts: int, max_seconds: int | None
    ) -> None:
        self.rows[job] = Row(owner, kind, max_attempts, self._moment(), max_seconds)

    def retry(self, job: str, old: str) -> None:
        """An ended job once more, with what it had saved."""
        was = self.rows[old]
        row = Row(was.owner, was.kind, was.limit, self._moment(), was.budget)
        row.place, row.stages = was.place, was.stages
        self.rows[job] = row

    def next(self, kinds: tuple[str, ...]) -> str | None:
        """Whose turn it is: short work, then the owner who has the fewest trainings running."""
        due = {
            job: row
            for job, row in self.rows.items()
            if row.state == "queued" and row.kind in kinds and row.due[0] <= self.now
        }
        busy = Counter(
            r.owner for r in self.rows.values() if r.state in HELD and r.kind == "distil"
        )

        def turn(job: str) -> tuple[int, Moment]:
            row = due[job]
            return (0 if row.kind != "distil" else 1 + busy[row.owner]), row.due

        return min(due, key=turn, default=None)

    def claim(self, job: str, worker: str) -> Token:
        row = self.rows[job]
        row.state, row.worker, row.attempt = "running", worker, row.attempt + 1
        row.lease, row.claimed, row.heard = self._moment(LEASE), self.now, self.now
        return Token(job, row.attempt, worker)

    def holds(self, token: Token) -> bool:
        row = self.rows[token.job]
        return row.state in HELD and (row.attempt, row.worker) == (token.attempt, token.worker)

    def heard(self, token: Token) -> Row:
        if not self.holds(token):
            raise LostError
        row = self.rows[token.job]
        row.heard = self.now
        return row

    def beat(self, token: Token) -> tuple[bool, bool, bool]:
        """Whether it is to cancel, to pause, and to end because of its budget."""
        row = self.heard(token)
        row.lease = self._moment(LEASE)
        spent = row.spent + self.now - row.claimed
        over = row.budget is not None and spent >= row.budget
        return row.cancel, row.state == "pausing", over

    def save(self, token: Token, stage: str, step: int) -> None:
        row = self.heard(token)
        if step > row.furthest.get(stage, -1):
            row.furthest[stage], row.strikes = step, 0
        row.place, row.stages = (stage, step), row.stages | {stage}

    def end_well(self, token: Token) -> None:
        """A training is packaged; the end of a package is its parent's."""
        row = self.heard(token)
        if row.kind == "distil":
            self._move(row, "packaging")
            self._package(token.job)
            return
        self._move(row, "succeeded")
        if row.parent and self.rows[row.parent].state == "packaging":
            self.rows[row.parent].place, self.rows[row.parent].stages = None, frozenset()
            self._move(self.rows[row.parent], "succeeded")

    def fail(self, token: Token, trouble: Trouble) -> None:
        self.heard(token)
        self._give_up(token.job, trouble)

    def hand_back(self, token: Token) -> None:
        row = self.heard(token)
        if row.cancel:
            self._cancel(token.job)
        else:
            self._requeue(row, 0)

    def obey(self, token: Token, orders: tuple[bool, bool, bool]) -> None:
        """Do what a beat said, which may be a while ago."""
        row = self.heard(token)
        if row.cancel:
            self._cancel(token.job)
        elif orders[1]:
            self._move(row, "paused")
        elif "distil" in row.stages:
            self._move(row, "packaging")
            self._package(token.job)
        else:
            self._fail(token.job, Trouble(user_error=True))

    def cancel(self, job: str) -> None:
        row = self.rows[job]
        if row.state in ENDED or row.state == "packaging" or row.parent:
            raise RefusedError
        row.cancel = True
        if row.state not in HELD:
            self._cancel(job)

    def pause(self, job: str) -> None:
        row = self.rows[job]
        if row.parent:
            raise RefusedError
        if row.state in ("pausing", "paused"):
            return
        if row.state not in ("queued", "running") or row.cancel:
            raise RefusedError
        row.state = "paused" if row.state == "queued" else "pausing"

    def resume(self, job: str) -> None:
        row = self.rows[job]
        if row.state != "paused":
            raise RefusedError
        row.state, row.strikes, row.due = "queued", 0, self._moment()

    def sweep(self) -> list[str]:
        """The jobs taken back, the longest expired first."""
        late = [j for j, r in self.rows.items() if r.state in HELD and r.lease[0] <= self.now]
        late.sort(key=lambda job: self.rows[job].lease)
        for job in late:
            self._give_up(job, LOST)
        return late

    def _move(self, row: Row, state: str) -> None:
        if row.state in HELD and state not in HELD:
            row.spent += row.heard - row.claimed
            row.worker = None
        row.state = state

    def _requeue(self, row: Row, delay: int) -> None:
        if row.state == "pausing":
            self._move(row, "paused")
        else:
            self._move(row, "queued")
            row.due = self._moment(delay)

    def _give_up(self, job: str, trouble: Trouble) -> None:
        row = self.rows[job]
        if row.cancel:
            self._cancel(job)
            return
        if trouble.damaged:
            row.place, row.stages, trouble = None, frozenset(), replace(trouble, retryable=True)
        row.strikes += 1
        if trouble.retryable and row.strikes < row.limit:
            self._requeue(row, min(300, 2 ** (row.strikes - 1)))
        else:
            self._fail(job, trouble)

    def _fail(self, job: str, trouble: Trouble) -> None:
        row = self.rows[job]
        self._move(row, "failed")
        if row.parent and self.rows[row.parent].state == "packaging":
            self._move(self.rows[row.parent], "failed")
        elif "distil" in row.stages and not trouble.user_error:
            self._package(job)

    def _cancel(self, job: str) -> None:
        self._move(self.rows[job], "cancelled")
        if "distil" in self.rows[job].stages:
            self._package(job)

    def _package(self, job: str) -> None:
        row, name = self.rows[job], package_of(job)
        assert name not in self.rows, "a second package"
        self.rows[name] = Row(row.owner, "package", row.limit, self._moment(), parent=job)


def package_of(job: str) -> str:
    """The name of a job's package."""
    return f"package of {job}"
