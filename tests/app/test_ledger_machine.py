"""The ledger against a model of it: any number of workers and users, in any order.

`HYPOTHESIS_PROFILE=long` looks for much longer, and elsewhere each time.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import event, inspect, select
from sqlalchemy.orm import Session

from app.db import Database
from app.errors import ConflictError
from app.jobs import ledger, moves
from app.jobs.claims import Claim, LeaseLostError, Orders
from app.models import Event, Job
from tests.app.jobs import steps
from tests.app.jobs.model import (
    ENDED,
    HELD,
    LEASE,
    Model,
    RefusedError,
    Token,
    Trouble,
    package_of,
)
from tests.support import make_dataset

COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}
PROFILES = {
    "quick": settings(max_examples=50, stateful_step_count=50, derandomize=True, **COMMON),
    "long": settings(max_examples=2000, stateful_step_count=100, database=None, **COMMON),
}
PROFILE = PROFILES.get(os.environ.get("HYPOTHESIS_PROFILE", ""), PROFILES["quick"])

START = datetime(2026, 1, 1, tzinfo=UTC)
# The state that a job is in after each entry of its log; the others change nothing.
AFTER = {
    "submitted": "queued",
    "started": "running",
    "requeued": "queued",
    "resumed": "queued",
    "pause_requested": "pausing",
    "paused": "paused",
    "trained": "packaging",
    "budget_spent": "packaging",
    **{state: state for state in ENDED},
}
FAILURES = {
    "passing": (steps.PASSING, Trouble(retryable=True)),
    "broken": (steps.BROKEN, Trouble()),
    "final": (steps.FINAL, Trouble(user_error=True)),
    "damaged": (steps.DAMAGED, Trouble(damaged=True)),
}
LATE: list[Callable[..., object]] = [
    lambda s, c: ledger.beat(s, c, lease_seconds=LEASE, progress={"step": 1}),
    lambda s, c: ledger.orders(s, c),
    lambda s, c: ledger.save_checkpoint(s, c, steps.student()),
    lambda s, c: ledger.trained(s, c, {}, ring=True),
    lambda s, c: ledger.succeed(s, c, {}),
    lambda s, c: ledger.fail(s, c, steps.PASSING),
    lambda s, c: ledger.cancelled(s, c),
    lambda s, c: ledger.paused(s, c),
    lambda s, c: ledger.budget_spent(s, c),
    lambda s, c: ledger.hand_back(s, c),
]


MANY = 6  # jobs, so that most acts meet one that something was done to
KINDS = ("distil", "ingest", "model", "package")
PICK = st.integers(0, 3)
ORDERS = st.fixed_dictionaries(
    {
        "owner": st.sampled_from("ab"),
        "kind": st.sampled_from(["distil", "distil", "distil", "ingest", "model"]),
        "max_attempts": st.integers(1, 3),
        "max_seconds": st.sampled_from([None, 40, 90]),
    }
)


def act(name: str, *given: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """Something to do, and with what."""
    return st.tuples(st.just(name), *given)


# Of one rule for all of it: of many, Hypothesis would leave some out of most runs.
ACTS = st.one_of(
    act("submit", ORDERS),
    act("retry", PICK),
    act("ask", PICK, st.sampled_from(["cancel", "pause", "resume", "resume"])),
    act("claim", st.sampled_from(["w1", "w2"]), st.sampled_from([KINDS, KINDS[:1], KINDS[1:]])),
    act("beat", PICK),
    act("checkpoint", PICK, st.sampled_from(["reprogram", "distil"]), st.integers(1, 2)),
    act("end", PICK, st.sampled_from(["well", "well", "back", *FAILURES])),
    act("obey", PICK),
    act("speak_too_late", PICK, st.sampled_from(LATE)),
    act("wait", st.sampled_from([1, 5, 30, LEASE + 1]), st.booleans()),
)
OF_A_CLAIM = ("beat", "checkpoint", "end", "obey")


class Clock:
    """The database's clock in the test's hands: it ticks when it's looked at, and jumps."""

    def __init__(self) -> None:
        self.seconds, self._looks = 0, count()

    def __call__(self, form: str, when: str) -> str:
        moment = START + timedelta(seconds=self.seconds, microseconds=next(self._looks))
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f")

    def be_of(self, database: Database) -> None:
        """Take the place of SQLite's own function."""

        @event.listens_for(database.engine, "connect")
        def _configure(connection: Any, _record: Any) -> None:
            connection.create_function("strftime", 2, self)
            connection.execute("PRAGMA synchronous=OFF")


class LedgerMachine(RuleBasedStateMachine):
    """Each rule does one thing to the ledger and to the model; each invariant compares them."""

    def __init__(self, migrated: Path, folder: Path) -> None:
        super().__init__()
        self.file = Path(shutil.copy(migrated, folder / "machine.db"))
        self.database, self.clock, self.model = Database(f"sqlite:///{self.file}"), Clock(), Model()
        self.clock.be_of(self.database)
        self.dataset_id = make_dataset(self.database)
        self.claims: dict[Token, Claim] = {}
        self.orders: dict[Token, Orders] = {}
        self.ended: dict[str, Any] = {}

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self.nothing_is_stuck()
        self.database.close()
        for path in self.file.parent.glob("machine.db*"):
            path.unlink()

    @initialize(orders=st.lists(ORDERS, min_size=1, max_size=3))
    def begin(self, orders: list[dict[str, Any]]) -> None:
        for order in orders:
            self.submit(order)

    @rule(act=ACTS)
    def then(self, act: tuple[Any, ...]) -> None:
        name, *given = act
        if name in OF_A_CLAIM and not self.live:
            self.claim("w1", KINDS)
        else:
            getattr(self, name)(*given)

    # What users do.

    def submit(self, order: dict[str, Any]) -> None:
        if len(self.model.rows) < MANY:
            self.model.submit(self._submit(**order), **order)

    def retry(self, pick: int) -> None:
        ended = [name for name, row in self.model.rows.items() if row.state in ENDED]
        old = self._one([name for name in ended if self.model.rows[name].kind == "distil"], pick)
        if old is not None and len(self.model.rows) < MANY:
            row = steps.job(self.database, old)
            given = {"owner": row.owner, "kind": row.kind, "max_attempts": row.max_attempts}
            given |= {"max_seconds": row.max_seconds, "checkpoint": row.checkpoint}
            self.model.retry(self._submit(**given, retry_of=old), old)

    def ask(self, pick: int, call: str) -> None:
        names = {self._name(row): row.id for row in self._rows()}
        apt = ("paused",) if call == "resume" else HELD
        name = self._one(
            sorted(self.model.rows, key=lambda n: self.model.rows[n].state in apt), pick
        )
        ideal = getattr(self.model, call)
        try:
            steps.ask(self.database, getattr(ledger, f"request_{call}"), names[name])
        except ConflictError:
            with pytest.raises(RefusedError):
                ideal(name)
        else:
            ideal(name)

    # What workers do.

    def claim(self, worker: str, kinds: tuple[str, ...]) -> Token | None:
        expected = self.model.next(kinds)
        found = steps.claim_or_none(self.database, worker, LEASE, kinds=kinds)
        if found is None:
            assert expected is None, "nothing was claimed"
            return None
        assert self._name(steps.job(self.database, found.job_id)) == expected, "another's turn"
        token = self.model.claim(expected, worker)
        assert token.attempt == found.attempt
        self.claims[token] = found
        return token

    def beat(self, pick: int) -> None:
        token = self._one(self.live, pick)
        answer = steps.beat(self.database, self.claims[token])
        assert (answer.cancel, answer.pause, answer.budget_spent) == self.model.beat(token)
        self.orders[token] = answer

    def checkpoint(self, pick: int, stage: str, step: int) -> None:
        token = self._one([t for t in self.live if self.claims[t].kind == "distil"], pick)
        if token is not None:
            stages = self.model.rows[token.job].stages - {stage}
            steps.save(self.database, self.claims[token], steps.checkpoint(step, *stages, stage))
            self.model.save(token, stage, step)

    def end(self, pick: int, how: str) -> None:
        token = self._one(self.live, pick)
        if how == "well":
            self._end_well(token)
        elif how == "back":
            steps.do(self.database, ledger.hand_back, self.claims[token])
            self.model.hand_back(token)
        else:
            failure, trouble = FAILURES[how]
            steps.do(self.database, ledger.fail, self.claims[token], failure)
            self.model.fail(token, trouble)

    def obey(self, pick: int) -> None:
        """What a beat said is done later: something else may have been asked for since."""
        told = [t for t in self.live if self.orders.get(t, Orders()) != Orders()]
        token = self._one(told, pick)
        if token is not None:
            orders = self.orders[token]
            call: Any = ledger.budget_spent
            if orders.cancel:
                call = ledger.cancelled
            elif orders.pause:
                call = ledger.paused
            steps.do(self.database, call, self.claims[token])
            self.model.obey(token, (orders.cancel, orders.pause, orders.budget_spent))

    def speak_too_late(self, pick: int, call: Callable[..., object]) -> None:
        """A worker that was given up on is alive after all."""
        token = self._one([t for t in self.claims if not self.model.holds(t)], pick)
        if token is not None:
            before = steps.everything(self.database)
            with pytest.raises(LeaseLostError):
                steps.do(self.database, call, self.claims[token])
            assert steps.everything(self.database) == before, "a stale claim changed something"

    # What goes by itself.

    def wait(self, seconds: int, sweep: bool) -> None:
        self.model.now += seconds
        self.clock.seconds += seconds
        if sweep:
            swept = [steps.job(self.database, each.job_id) for each in steps.sweep(self.database)]
            assert [self._name(row) for row in swept] == self.model.sweep(), "swept"

    # What must be true.

    @invariant()
    def all_is_well(self) -> None:
        rows, logs = self._rows(), defaultdict(list)
        with self.database.read() as session:
            for entry in session.scalars(select(Event).order_by(Event.job_id, Event.seq)):
                logs[entry.job_id].append(entry)
            self.one_holder_at_most(session, rows)
        self.as_the_model_says(rows)
        self.one_package_at_most(rows)
        for row in rows:
            self.row_agrees_with_itself(row)
            self.log_agrees_with_its_row(row, logs[row.id])
            self.once_ended_never_changed(row, [entry.type for entry in logs[row.id]])

    def as_the_model_says(self, rows: list[Job]) -> None:
        found = {self._name(row): row for row in rows}
        assert set(found) == set(self.model.rows), "the jobs that there are"
        for name, row in found.items():
            told = self.model.rows[name]
            place = row.checkpoint and (row.checkpoint["stage"], row.checkpoint["step"])
            real = (row.state, row.attempt, row.strikes, row.lease_owner)
            assert real == (told.state, told.attempt, told.strikes, told.worker), name
            assert (place, row.cancel_requested_at is not None) == (told.place, told.cancel), name
            assert abs(row.spent_seconds - told.spent) < 1, name

    def one_holder_at_most(self, session: Session, rows: list[Job]) -> None:
        holders = Counter[str]()
        for claim in self.claims.values():
            try:
                holders[moves.held(session, claim).id] += 1
            except LeaseLostError:
                continue
        assert holders == Counter(row.id for row in rows if row.state in HELD), "holders"

    def one_package_at_most(self, rows: list[Job]) -> None:
        parents = [row.parent_id for row in rows if row.parent_id is not None]
        assert len(parents) == len(set(parents)), "two packages"

    def row_agrees_with_itself(self, row: Job) -> None:
        held = row.state in HELD
        assert (row.lease_owner is not None) == (row.lease_until is not None) == held
        assert (row.ended_at is not None) == (row.state in ENDED)
        assert (row.failure is not None) == (row.state == "failed")

    def log_agrees_with_its_row(self, row: Job, log: list[Event]) -> None:
        assert [each.seq for each in log] == list(range(1, len(log) + 1)), "a gap"
        states = [AFTER[each.type] for each in log if each.type in AFTER]
        assert states[-1] == row.state, "the log says otherwise"

    def once_ended_never_changed(self, row: Job, log: list[str]) -> None:
        if row.state in ENDED or row.id in self.ended:
            now = {column.key: getattr(row, column.key) for column in inspect(Job).columns}
            then, told = self.ended.setdefault(row.id, (now, log))
            assert now == then, "an ended job changed"
            assert log in (told, [*told, "student_ready"]), "an ended job's log went on"

    def nothing_is_stuck(self) -> None:
        """Workers that always succeed bring every job to its end that isn't paused."""
        for _ in range(4):
            self.wait(301, sweep=True)
            while (token := self.claim("w3", KINDS)) is not None:
                self._end_well(token)
        assert {row.state for row in self._rows()} <= {*ENDED, "paused"}, "a job is stuck"

    # How the acts find their way.

    @property
    def live(self) -> list[Token]:
        return [token for token in self.claims if self.model.holds(token)]

    def _one(self, things: list[Any], pick: int) -> Any:
        """One of the latest: they are the most interesting."""
        return things[-1 - pick % len(things)] if things else None

    def _name(self, row: Job) -> str:
        return row.id if row.parent_id is None else package_of(row.parent_id)

    def _rows(self) -> list[Job]:
        with self.database.read() as session:
            return list(session.scalars(select(Job)))

    def _submit(self, **given: Any) -> str:
        options = {"dataset_id": self.dataset_id, "spec": {}, "ring": False, **given}
        with self.database.write() as session:
            return moves.submit(session, **options).id

    def _end_well(self, token: Token) -> None:
        held = self.claims[token]
        with self.database.write() as session:
            if held.kind == "distil":
                ledger.trained(session, held, {"trained": []}, ring=False)
            else:
                ledger.succeed(session, held, {})
        self.model.end_well(token)


def test_the_ledger_does_what_the_model_says(migrated: Path, tmp_path: Path) -> None:
    run_state_machine_as_test(lambda: LedgerMachine(migrated, tmp_path), settings=PROFILE)
