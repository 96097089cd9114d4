"""Which call moves a job from which state where, and that nothing else moves it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.db import Database
from app.errors import ConflictError
from app.jobs import ledger, moves
from app.jobs.claims import Claim, LeaseLostError
from app.jobs.states import LEGAL, IllegalMoveError, State, check
from app.models import Job
from tests.app.jobs import steps
from tests.app.jobs.steps import DAMAGED, FINAL, LEASE, PASSING

ROOT = Path(__file__).parents[3]


class RefusedError(Exception):
    """A call that found nothing to do."""


def claim(session: Session, held: Claim) -> None:
    if moves.claim(session, worker="w2", lease_seconds=LEASE, kinds=["distil"]) is None:
        raise RefusedError


def sweep(session: Session, held: Claim) -> None:
    if not ledger.sweep(session):
        raise RefusedError


def package(session: Session) -> Claim:
    found = moves.claim(session, worker="w2", lease_seconds=LEASE, kinds=["package"])
    if found is None:
        raise RefusedError
    return found


def budget_with_student(session: Session, held: Claim) -> None:
    ledger.save_checkpoint(session, held, steps.student())
    ledger.budget_spent(session, held)


CALLS: dict[str, Callable[[Session, Claim], object]] = {
    "claim": claim,
    "sweep": sweep,
    "beat": lambda s, c: ledger.beat(s, c, lease_seconds=LEASE),
    "orders": lambda s, c: ledger.orders(s, c),
    "save_checkpoint": lambda s, c: ledger.save_checkpoint(s, c, steps.checkpoint(1)),
    "trained": lambda s, c: ledger.trained(s, c, {"trained": []}, ring=False),
    "succeed": lambda s, c: ledger.succeed(s, c, {}),
    "fail": lambda s, c: ledger.fail(s, c, FINAL),
    "fail, passing": lambda s, c: ledger.fail(s, c, PASSING),
    "fail, damaged": lambda s, c: ledger.fail(s, c, DAMAGED),
    "cancelled": lambda s, c: ledger.cancelled(s, c),
    "paused": lambda s, c: ledger.paused(s, c),
    "budget_spent": lambda s, c: ledger.budget_spent(s, c),
    "budget_spent, with a student": budget_with_student,
    "hand_back": lambda s, c: ledger.hand_back(s, c),
    "put_off": lambda s, c: ledger.put_off(s, c),
    "request_cancel": lambda s, c: ledger.request_cancel(s, s.get_one(Job, c.job_id)),
    "request_pause": lambda s, c: ledger.request_pause(s, s.get_one(Job, c.job_id)),
    "request_resume": lambda s, c: ledger.request_resume(s, s.get_one(Job, c.job_id)),
    "succeed, its package": lambda s, c: ledger.succeed(s, package(s), {}),
    "fail, its package": lambda s, c: ledger.fail(s, package(s), FINAL),
}

# What each call does to a job in each state. Where a state is missing the call is refused.
MOVES: dict[str, dict[str, str]] = {
    "claim": {"queued": "running"},
    "sweep": {"running": "queued", "pausing": "paused"},
    "beat": {"running": "running", "pausing": "pausing"},
    "orders": {"running": "running", "pausing": "pausing"},
    "save_checkpoint": {"running": "running", "pausing": "pausing"},
    "trained": {"running": "packaging", "pausing": "packaging"},
    "succeed": {"running": "succeeded", "pausing": "succeeded"},
    "fail": {"running": "failed", "pausing": "failed"},
    "fail, passing": {"running": "queued", "pausing": "paused"},
    "fail, damaged": {"running": "queued", "pausing": "paused"},
    "cancelled": {"running": "cancelled", "pausing": "cancelled"},
    "paused": {"pausing": "paused"},
    "budget_spent": {"running": "failed", "pausing": "failed"},
    "budget_spent, with a student": {"running": "packaging", "pausing": "packaging"},
    "hand_back": {"running": "queued", "pausing": "paused"},
    "put_off": {"running": "queued", "pausing": "paused"},
    "request_cancel": {
        "queued": "cancelled",
        "running": "running",
        "pausing": "pausing",
        "paused": "cancelled",
    },
    "request_pause": {
        "queued": "paused",
        "running": "pausing",
        "pausing": "pausing",
        "paused": "paused",
    },
    "request_resume": {"paused": "queued"},
    "succeed, its package": {"packaging": "succeeded"},
    "fail, its package": {"packaging": "failed"},
}

# How a job that was just claimed gets into each state.
REACH: dict[str, tuple[str, ...]] = {
    "queued": ("hand_back",),
    "running": (),
    "pausing": ("request_pause",),
    "paused": ("request_pause", "paused"),
    "packaging": ("trained",),
    "succeeded": ("succeed",),
    "failed": ("fail",),
    "cancelled": ("cancelled",),
}
REFUSALS = (LeaseLostError, ConflictError, IllegalMoveError, RefusedError)


@pytest.mark.parametrize("state", REACH)
def test_each_call_moves_a_job_as_the_table_says(any_database: Database, state: str) -> None:
    for name, call in CALLS.items():
        steps.submit(any_database, max_seconds=100.0)
        held = steps.claim(any_database)
        for step in REACH[state]:
            steps.do(any_database, CALLS[step], held)
        if name == "sweep" and state in ("running", "pausing"):
            steps.expire(any_database, held.job_id)
        before = steps.everything(any_database)
        expected = MOVES[name].get(state)
        try:
            steps.do(any_database, call, held)
        except REFUSALS:
            assert expected is None, name
        else:
            assert expected is not None, name
        assert steps.job(any_database, held.job_id).state == (expected or state), name
        if expected is None or name == "orders":
            assert steps.everything(any_database) == before, name
        steps.clear(any_database)


def test_the_table_has_every_call_and_every_state() -> None:
    public = {
        name
        for name, call in inspect.getmembers(ledger, inspect.isfunction)
        if call.__module__ == ledger.__name__ and not name.startswith("_")
    }
    assert {name.partition(",")[0] for name in CALLS} == public | {"claim"}
    assert set(CALLS) == set(MOVES)
    assert set(REACH) == set(State)


def test_the_legal_moves_are_those_of_the_table() -> None:
    found = {(old, new) for row in MOVES.values() for old, new in row.items() if old != new}
    assert found == LEGAL


def test_moves_outside_the_table_are_refused() -> None:
    for old in State:
        for new in State:
            if (old, new) in LEGAL:
                check(old, new)
            else:
                with pytest.raises(IllegalMoveError):
                    check(old, new)


def is_state(node: ast.AST | None) -> bool:
    """Whether a key names the column."""
    if isinstance(node, ast.Constant):
        return node.value == "state"
    return isinstance(node, ast.Attribute) and node.attr == "state"


def calls(node: ast.AST) -> str:
    """The name of what a call calls."""
    function = getattr(node, "func", None)
    return str(getattr(function, "attr", None) or getattr(function, "id", ""))


def writes_state(node: ast.AST) -> bool:
    """Whether a piece of code sets the state of a row, in any of SQLAlchemy's ways."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return is_state(node)
    if isinstance(node, ast.Call) and calls(node) in ("Job", "values", "setattr", "insert"):
        keys = [key for each in node.args if isinstance(each, ast.Dict) for key in each.keys]
        named = any(keyword.arg == "state" for keyword in node.keywords)
        return named or any(map(is_state, [*keys, *node.args]))
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return bool(re.search(r"(update|insert into)\s+\"?jobs\b", node.value, re.IGNORECASE))
    return False


def writers(folders: tuple[str, ...]) -> Iterator[str]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if any(map(writes_state, ast.walk(tree))):
                yield path.relative_to(ROOT).as_posix()


def test_one_module_alone_writes_the_state() -> None:
    assert list(writers(("app", "worker", "tdmr"))) == ["app/jobs/moves.py"]


@pytest.mark.parametrize(
    "code",
    [
        "job.state = 'failed'",
        "job.failure, job.state = None, 'failed'",
        "job.state: str = 'failed'",
        "Job(id='x', state='queued')",
        "update(Job).values(state='failed')",
        "update(Job).values({Job.state: 'failed'})",
        "update(Job).values({'state': 'failed'})",
        "setattr(job, 'state', 'failed')",
        "text('UPDATE jobs SET attempt = 1')",
    ],
)
def test_no_way_to_write_the_state_is_overlooked(code: str) -> None:
    assert any(map(writes_state, ast.walk(ast.parse(code))))


@pytest.mark.parametrize(
    "code",
    ["if job.state == 'failed': pass", "Swept(state=state)", "log.info('left', state=state)"],
)
def test_to_read_the_state_isnt_to_write_it(code: str) -> None:
    assert not any(map(writes_state, ast.walk(ast.parse(code))))


def test_a_call_that_is_illegal_says_which_move(any_database: Database) -> None:
    held = steps.claimed(any_database)
    with pytest.raises(IllegalMoveError, match="running to paused"):
        steps.do(any_database, ledger.paused, held)
