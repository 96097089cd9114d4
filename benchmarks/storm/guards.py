"""Guards of the product, switched off in one process: the storm must notice what they prevent."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app import outbox
from app.jobs import ledger, moves
from app.jobs.claims import Claim, Swept
from app.jobs.states import HELD
from app.models import Job
from app.settings import Settings

VARIABLE = "TDMR_STORM_OFF"


def without_fencing() -> None:
    """Whoever once claimed a job may write to it, for as long as anybody holds it."""

    def fence(claim: Claim) -> tuple[ColumnElement[bool], ...]:
        return Job.id == claim.job_id, Job.state.in_(HELD)

    moves._fence = fence


def without_lease() -> None:
    """The sweep takes every job that is held, however long its lease still lasts."""

    def sweep(session: Session, *, ring: bool = False) -> list[Swept]:
        held = session.scalars(select(Job).where(Job.state.in_(HELD)).with_for_update()).all()
        return [ledger._sweep_one(session, job, ring=ring) for job in held]

    ledger.sweep = sweep


def without_outbox() -> None:
    """A bell is rung at once, and nothing remembers that it was owed."""
    settings = Settings()
    outbox.ring = lambda session, job: ring_directly(settings, job)


def ring_directly(settings: Settings, job: Job) -> None:
    """Ring once, whether or not anybody is there to take the bell."""
    assert settings.broker_url is not None
    outbox._send(settings.broker_url, job.id, outbox.bell(job.queue, job.kind))


GUARDS: dict[str, Callable[[], None]] = {
    "fencing": without_fencing,
    "lease": without_lease,
    "outbox": without_outbox,
}
