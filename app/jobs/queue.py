"""The order in which queued jobs are claimed, and what a waiting one waits for.

Work of seconds (checks of datasets and models, packaging) goes before trainings. Among trainings
every owner gets a turn in each round: an owner's n-th waiting job comes behind the n-1 before it
and behind what the owner has running, so ten jobs of one never make another's first wait for all
ten. An owner's own jobs go by priority, then by age. A sweep's jobs wait until one of them has
shown the views to the foundation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Subquery, case, func, select
from sqlalchemy.orm import Session

from app.db import now
from app.jobs import fleet
from app.jobs.states import HELD, State
from app.models import Job

LONG = "distil"  # the kind that takes a device for long


@dataclass(frozen=True)
class Place:
    """Where a queued job stands: 1 is next; None while it isn't due. And what it waits for."""

    position: int | None
    reason: str


def due(moment: datetime, queues: Sequence[str] | None, kinds: Sequence[str] | None) -> Subquery:
    """Every job that may be claimed at `moment` from these queues (None: all), with its place.

    Columns: `id` and `position`, 1 being the next to claim.
    """
    where: list[ColumnElement[bool]] = [
        Job.state == State.QUEUED,
        Job.run_after <= moment,
        Job.waits_for.is_(None),
    ]
    if queues is not None:
        where.append(Job.queue.in_(queues))
    if kinds is not None:
        where.append(Job.kind.in_(kinds))
    busy = (
        select(Job.owner, func.count().label("jobs"))
        .where(Job.state.in_(HELD), Job.kind == LONG)
        .group_by(Job.owner)
        .subquery()
    )
    own = func.row_number().over(
        partition_by=(Job.owner, Job.kind == LONG),
        order_by=(Job.priority.desc(), Job.run_after, Job.id),
    )
    turns = (
        select(
            Job.id,
            Job.run_after,
            case((Job.kind == LONG, own + func.coalesce(busy.c.jobs, 0)), else_=0).label("turn"),
        )
        .outerjoin(busy, busy.c.owner == Job.owner)
        .where(*where)
        .subquery()
    )
    order = (turns.c.turn, turns.c.run_after, turns.c.id)
    position = func.row_number().over(order_by=order).label("position")
    return select(turns.c.id, position).subquery()


@dataclass(frozen=True)
class Standing:
    """All who wait for one kind of work in one queue, at a moment."""

    moment: datetime
    positions: dict[str, int]  # by job; of those that are due
    served: bool  # by some worker that is there

    def place(self, job: Job) -> Place:
        """Where a queued job stands."""
        position = self.positions.get(job.id)
        if job.waits_for is not None:
            return Place(None, "sweep")
        return Place(position, _reason(position, served=self.served))

    def misses(self, job: Job, seconds: float) -> bool:
        """Whether a queued job has become due in the `seconds` since, or was let go."""
        if job.run_after <= self.moment:
            return job.waits_for is None and job.id not in self.positions
        return job.run_after <= self.moment + timedelta(seconds=seconds)


def standing(
    session: Session, queue: str, kind: str, patience: float, only: Sequence[Job] | None = None
) -> Standing:
    """The place of everybody in a queue, or `only` of some.

    A worker counts as there when it was heard of in the last `patience` seconds.
    """
    moment = now(session)
    ranks = due(moment, [queue], [kind])
    wanted = select(ranks)
    if only is not None:
        wanted = wanted.where(ranks.c.id.in_([job.id for job in only]))
    positions = {row.id: row.position for row in session.execute(wanted)}
    return Standing(moment, positions, fleet.serves(session, queue, kind, patience))


def places(session: Session, jobs: Iterable[Job], patience: float) -> dict[str, Place]:
    """The place of each queued job of `jobs`, by its id."""
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        if job.state == State.QUEUED:
            groups.setdefault((job.queue, job.kind), []).append(job)
    found: dict[str, Place] = {}
    for group, waiting in groups.items():
        stands = standing(session, *group, patience, waiting)
        found |= {job.id: stands.place(job) for job in waiting}
    return found


def _reason(position: int | None, *, served: bool) -> str:
    """One word for a program: what has to happen before the job is claimed."""
    if position is None:
        return "backing_off"
    if not served:
        return "no_worker"
    return "next" if position == 1 else "behind_others"
