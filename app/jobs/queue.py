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

from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    Select,
    Subquery,
    bindparam,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.db import UtcDateTime, now
from app.jobs import fleet
from app.jobs.states import HELD, State
from app.models import Job

LONG = "distil"  # the kind that takes a device for long
CROWD = 500  # owners, of whom to rank all that waits is quicker than to ask after each
OWN_ORDER = (Job.priority.desc(), Job.run_after, Job.id)
ALL = 1 << 20  # more devices than any job wants
# In statements that are made once.
MOMENT = bindparam("moment", type_=UtcDateTime())
DEVICES = bindparam("at_most_devices", type_=Integer())
Moment = datetime | ColumnElement[datetime]
# Spelled out in statements: only so does a database find the indexes of those who wait.
_QUEUED: ColumnElement[str] = literal_column(f"'{State.QUEUED}'")
_LONG: ColumnElement[str] = literal_column(f"'{LONG}'")


@dataclass(frozen=True)
class Place:
    """Where a queued job stands: 1 is next; None while it isn't due. And what it waits for."""

    position: int | None
    reason: str


def due(
    moment: Moment,
    queues: Sequence[str] | None,
    kinds: Sequence[str] | None,
    devices: int | ColumnElement[int] = ALL,
) -> Subquery:
    """Every job that may be claimed at `moment` from these queues (None: all), with its place.

    Trainings on more than `devices` aren't among them. Columns: `id` and `position`, 1 being the
    next to claim.
    """
    parts = []
    if kinds is None or LONG in kinds:
        own = func.row_number().over(partition_by=Job.owner, order_by=OWN_ORDER)
        waiting = select(Job.owner, Job.id, Job.run_after, own.label("own"))
        each = waiting.where(*_fitting(moment, queues, Job, devices)).subquery()
        busy = _busy()
        turn = each.c.own + func.coalesce(busy.c.jobs, 0)
        ranked = select(each.c.id, each.c.run_after, turn.label("turn"))
        parts.append(ranked.outerjoin(busy, busy.c.owner == each.c.owner))
    if kinds is None or set(kinds) != {LONG}:
        short = select(Job.id, Job.run_after, literal(0).label("turn"))
        parts.append(short.where(*_due(moment, queues, Job), *_short(kinds)))
    turns = union_all(*parts).subquery() if len(parts) > 1 else parts[0].subquery()
    order = (turns.c.turn, turns.c.run_after, turns.c.id)
    position = func.row_number().over(order_by=order).label("position")
    return select(turns.c.id, position).subquery()


def is_any(queues: Sequence[str] | None, kinds: Sequence[str] | None) -> ColumnElement[bool]:
    """Whether any job may be claimed at MOMENT: what idle workers ask each second costs little."""
    found = []
    if kinds is None or LONG in kinds:
        found.append(exists().where(*_fitting(MOMENT, queues, Job, DEVICES)))
    if kinds is None or set(kinds) != {LONG}:
        found.append(exists().where(*_due(MOMENT, queues, Job), *_short(kinds)))
    return or_(*found)


def nexts(
    queues: Sequence[str] | None, kinds: Sequence[str] | None
) -> list[ColumnElement[str | None]]:
    """Whom to claim at MOMENT: ids to be tried in turn, each the next one's or null, and locked.

    All say the same. The first is quick and may miss it: it looks at the first job of each owner
    alone, whom another claimer may have locked, and gives up where very many owners wait. The last
    ranks all who wait, and doesn't.
    """
    found = []
    if queues is not None and len(queues) == 1:
        quick: list[ColumnElement[str | None]] = []
        if kinds is None or set(kinds) != {LONG}:
            first = select(Job.id).where(*_due(MOMENT, queues, Job), *_short(kinds))
            quick.append(_locking(first.order_by(Job.run_after, Job.id)))
        if kinds is None or LONG in kinds:
            quick.append(_locking(_heads(queues)))
        found.append(func.coalesce(*quick) if len(quick) > 1 else quick[0])
    ranks = due(MOMENT, queues, kinds, DEVICES)
    ranked = select(Job.id).join(ranks, ranks.c.id == Job.id).where(Job.state == _QUEUED)
    return [*found, _locking(ranked.order_by(ranks.c.position))]


def _heads(queues: Sequence[str]) -> Select[str]:
    """Every owner's first training, in the order of their turns; none of more than CROWD owners.

    Owners are found one after the other, each by a step in the index (a loose index scan), so that
    what it costs goes by the number of owners and not of jobs.
    """
    some, more, head = aliased(Job), aliased(Job), aliased(Job)
    owners = select(func.min(some.owner).label("owner")).where(*_trainings(queues, some))
    walk = owners.cte("owners", recursive=True)
    behind = select(func.min(more.owner)).where(
        *_trainings(queues, more), more.owner > walk.c.owner
    )
    walk = walk.union_all(
        select(behind.correlate(walk).scalar_subquery()).where(walk.c.owner.is_not(None))
    )
    few = select(walk.c.owner).where(walk.c.owner.is_not(None)).limit(CROWD + 1).cte("few")
    first = (
        select(head.id)
        .where(*_fitting(MOMENT, queues, head, DEVICES), head.owner == few.c.owner)
        .order_by(head.priority.desc(), head.run_after, head.id)
        .limit(1)
        .correlate(few)
        .scalar_subquery()
    )
    heads, busy = select(few.c.owner, first.label("id")).cte("heads"), _busy()
    return (
        select(Job.id)
        .join(heads, heads.c.id == Job.id)
        .outerjoin(busy, busy.c.owner == heads.c.owner)
        .where(
            Job.state == _QUEUED, select(func.count()).select_from(few).scalar_subquery() <= CROWD
        )
        .order_by(func.coalesce(busy.c.jobs, 0), Job.run_after, Job.id)
    )


def _locking(query: Select[str]) -> ColumnElement[str | None]:
    return query.limit(1).with_for_update(skip_locked=True, of=Job).scalar_subquery()


def _busy() -> CTE:
    """How many trainings of each owner run."""
    busy = select(Job.owner, func.count().label("jobs"))
    busy = busy.where(Job.state.in_(HELD), Job.kind == LONG).group_by(Job.owner)
    return busy.cte("busy").prefix_with("MATERIALIZED", dialect="postgresql")


def _trainings(queues: Sequence[str] | None, job: type[Job]) -> tuple[ColumnElement[bool], ...]:
    return (
        job.state == _QUEUED,
        job.kind == _LONG,
        job.waits_for.is_(None),
        *_among(job.queue, queues),
    )


def _due(
    moment: Moment, queues: Sequence[str] | None, job: type[Job]
) -> tuple[ColumnElement[bool], ...]:
    due = (job.state == _QUEUED, job.run_after <= moment, job.waits_for.is_(None))
    return *due, *_among(job.queue, queues)


def _fitting(
    moment: Moment,
    queues: Sequence[str] | None,
    job: type[Job],
    devices: int | ColumnElement[int],
) -> tuple[ColumnElement[bool], ...]:
    """Trainings that are due, and that so many devices are enough for."""
    return *_due(moment, queues, job), job.kind == _LONG, job.devices <= devices


def _short(kinds: Sequence[str] | None) -> tuple[ColumnElement[bool], ...]:
    asked = None if kinds is None else [kind for kind in kinds if kind != LONG]
    return Job.kind != _LONG, *_among(Job.kind, asked)


def _among(
    column: InstrumentedAttribute[str], names: Sequence[str] | None
) -> tuple[ColumnElement[bool], ...]:
    if names is None:
        return ()
    # Of one name, an index gives the rows in the order that they are wanted in.
    return (column == names[0] if len(names) == 1 else column.in_(names),)


@dataclass(frozen=True)
class Standing:
    """All who wait for one kind of work in one queue, at a moment."""

    moment: datetime
    positions: dict[str, int]  # by job; of those that are due
    devices: int  # of the largest worker that is there; 0 without any

    def place(self, job: Job) -> Place:
        """Where a queued job stands."""
        position = self.positions.get(job.id)
        if job.waits_for is not None:
            return Place(None, "sweep")
        return Place(position, _reason(position, served=job.devices <= self.devices))

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
    workers = fleet.takers(session, queue, kind, patience)
    return Standing(moment, positions, max((worker.devices for worker in workers), default=0))


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
