"""What `make bench-scale` measures on, at the size of a test."""

from __future__ import annotations

from sqlalchemy import func, select

from app.api import pages
from app.db import Database
from app.jobs import moves
from app.models import Job, Student
from benchmarks.scale import ledger, stock
from benchmarks.scale.__main__ import BOUNDS, missed


def test_the_stock_is_a_ledger_whose_jobs_can_be_claimed(postgres_copy: str) -> None:
    database = Database(postgres_copy)
    stock.fill(database, stock.Ledger(total=3000, waiting=1000))
    with database.read() as session:
        counted = select(Job.state, func.count()).group_by(Job.state)
        states = {state: count for state, count in session.execute(counted)}  # noqa: C416 - rows
        students = session.scalar(select(func.count()).select_from(Student))
    assert states == {"queued": 1000, "failed": 40, "cancelled": 4, "succeeded": 1956}
    assert students == 1956
    with database.write() as session:
        claim = moves.claim(session, worker="w", lease_seconds=60, queues=["default"])
    assert claim is not None
    assert claim.job_id.startswith(f"job_{stock.FIRST_MS + 2000:012x}")  # the oldest that waits
    database.close()


def test_pages_are_asked_for_in_every_way() -> None:
    asked = ledger._paths(stock.Ledger(total=3000, waiting=1000), 500)
    assert {name for name, _ in asked} == {
        f"{where}{state}"
        for where in ("first", "deep")
        for state in ("", *(f"_{state}" for state in ledger.STATES))
    }
    cursors = [
        path.partition("after=")[2].partition("&")[0] for name, path in asked if "d" in name[:1]
    ]
    assert all(pages.after_id(cursor) for cursor in cursors)


def test_a_figure_beyond_its_bound_is_named() -> None:
    assert missed(BOUNDS) == []
    slow = {name: bound + (1 if name.endswith("_ms") else -0.1) for name, bound in BOUNDS.items()}
    assert missed(slow) == list(BOUNDS)
