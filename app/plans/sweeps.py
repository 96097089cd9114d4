"""Sweeps: ordinary jobs, ordered together, that show each view to the foundation once.

The first of them fills the cache; the others wait for that (`app.jobs.together`) and find it. All
work in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import audit
from app.access import quotas
from app.db import new_id, now
from app.errors import ConflictError, NotFoundError
from app.jobs import ledger, queue, service
from app.jobs.idempotency import Idempotency
from app.jobs.queue import Place
from app.jobs.service import Terms
from app.jobs.states import ENDED, State
from app.models import Job, Student
from app.plans import checks, estimates, options
from app.plans import load as loads
from app.plans.checks import Order
from app.plans.findings import Finding
from app.plans.tables import Sweep
from app.settings import Settings
from tdmr.config import JobSpec
from tdmr.wire.plans import DryRunOut, Estimate


@dataclass(frozen=True)
class Plan:
    """What a sweep is to be: one job for each of `students`, all else alike."""

    dataset_id: str
    spec: JobSpec  # with the first of the students
    students: tuple[str, ...]
    terms: Terms
    name: str | None
    metadata: dict[str, str]

    def orders(self) -> list[Order]:
        """The jobs, in the order that they are queued in."""
        return [
            Order(self.dataset_id, self.spec.model_copy(update={"student": each}), self.terms)
            for each in self.students
        ]


@dataclass(frozen=True)
class Members:
    """A sweep with its jobs, the place of those that are queued, and the students so far."""

    sweep: Sweep
    jobs: list[Job]
    places: dict[str, Place]
    students: dict[str, Student]  # by job


def create(
    session: Session,
    *,
    owner: str,
    plan: Plan,
    idempotency: Idempotency,
    settings: Settings,
) -> Members:
    """Queue the jobs of a sweep; the first carries the request's idempotency key.

    Raises what `app.plans.orders.place` raises; nothing is queued unless everything is.
    """
    quotas.alone(session, owner)
    checks.refuse(findings(session, owner, plan, settings))
    sweep = Sweep(
        id=new_id("swp"),
        owner=owner,
        name=plan.name,
        dataset_id=plan.dataset_id,
        foundation=plan.spec.foundation,
        students=list(plan.students),
        options=plan.spec.options.model_dump(mode="json"),
        baselines=list(plan.spec.baselines),
        created_at=now(session),
    )
    session.add(sweep)
    session.flush()
    first: str | None = None
    for order, estimate in zip(
        plan.orders(), _estimated(session, owner, plan, settings), strict=True
    ):
        view = service.create(
            session,
            owner=owner,
            dataset_id=order.dataset_id,
            spec=order.spec,
            terms=order.terms,
            metadata=plan.metadata,
            idempotency=replace(idempotency, key=None) if first else idempotency,
            settings=settings,
            sweep_id=sweep.id,
            waits_for=first,
            estimate=estimates.kept(estimate),
        )
        first = first or view.job.id
    audit.nothing(session)  # of each job alone
    audit.about(session, "sweep", sweep.id, jobs=len(plan.students))
    return _members(session, sweep, settings)


def dry_run(session: Session, owner: str, plan: Plan, settings: Settings) -> DryRunOut:
    """Everything there is to say of a sweep, errors first. Writes nothing.

    What is said of some students alone points at them, and what is said of all at the order.
    """
    found = findings(session, owner, plan, settings)
    estimated = _estimated(session, owner, plan, settings)
    known = [each for each in estimated if each is not None]
    said = [
        checks.possible(session, owner, order, estimate, settings)
        for order, estimate in zip(plan.orders(), estimated, strict=True)
    ]
    shared = [
        each
        for each in said[0]
        if each.pointer != "/student" and all(each in others for others in said)
    ]
    alone = [
        replace(each, pointer=f"/students/{number}")
        for number, of_one in enumerate(said)
        for each in of_one
        if each not in shared
    ]
    return DryRunOut(
        ok=not found,
        findings=[each.out() for each in (*found, *shared, *alone)],
        estimate=estimates.total(known) if len(known) == len(estimated) else None,
    )


def _estimated(
    session: Session, owner: str, plan: Plan, settings: Settings
) -> list[Estimate | None]:
    """What each job will take; what one of them shows to the foundation is there for the next."""
    dataset, shown = checks.dataset_of(session, owner, plan.dataset_id), set[str]()
    found: list[Estimate | None] = []
    for order in plan.orders():
        load = None if dataset is None else loads.of(order.spec, dataset)
        if dataset is None or load is None:
            found.append(None)
            continue
        key = loads.views_key(order.spec, dataset, load)
        warm, queue_name = key in shown, order.terms.queue
        found.append(estimates.make(session, order.spec, dataset, queue_name, settings, warm=warm))
        shown.add(key)
    return found


def findings(session: Session, owner: str, plan: Plan, settings: Settings) -> list[Finding]:
    """What keeps a sweep from being taken: what is wrong with all jobs, and with each student."""
    first, *others = plan.orders()
    whole = replace(first, count=len(plan.students))
    found = checks.certain(session, owner, whole, settings)
    common = [each for each in found if each.pointer != "/student"]
    named = enumerate(plan.students)
    unknown = (checks.unknown_model(name, "student", f"/students/{n}") for n, name in named)
    said = {each.detail for each in common}
    alone = [
        replace(each, pointer=f"/students/{n}")
        for n, order in enumerate(others, 1)
        for each in options.contradictions(order.spec)
        if each.detail not in said
    ]
    return [*common, *alone, *(each for each in unknown if each is not None)]


def get(session: Session, owner: str, sweep_id: str, settings: Settings) -> Members:
    """An owner's sweep. Raises NotFoundError, also for somebody else's."""
    sweep = session.scalars(
        select(Sweep).where(Sweep.id == sweep_id, Sweep.owner == owner)
    ).one_or_none()
    if sweep is None:
        raise NotFoundError("There is no such sweep.")
    return _members(session, sweep, settings)


def of_job(session: Session, job: Job, settings: Settings) -> Members:
    """The sweep that a job was ordered with."""
    assert job.sweep_id is not None, "the key was another request's"
    return _members(session, session.get_one(Sweep, job.sweep_id), settings)


def newest(
    session: Session, owner: str, before: str | None, limit: int
) -> list[tuple[Sweep, list[Job]]]:
    """An owner's sweeps with their jobs, the newest first, beginning behind the id `before`."""
    query = select(Sweep).where(Sweep.owner == owner)
    if before is not None:
        query = query.where(Sweep.id < before)
    found = session.scalars(query.order_by(Sweep.id.desc()).limit(limit)).all()
    jobs: dict[str, list[Job]] = {sweep.id: [] for sweep in found}
    for job in session.scalars(select(Job).where(Job.sweep_id.in_(jobs))):
        jobs[job.sweep_id or ""].append(job)
    return [(sweep, jobs[sweep.id]) for sweep in found]


def cancel(session: Session, owner: str, sweep_id: str, settings: Settings) -> Members:
    """Cancel what of a sweep goes on. Raises NotFoundError, and ConflictError if nothing does.

    A job whose student is being packaged comes to its end.
    """
    found = get(session, owner, sweep_id, settings)
    going = _locked(session, found.sweep.id)
    if not going:
        raise ConflictError("The sweep can't be cancelled: its jobs have ended.")
    for job in going:
        ledger.request_cancel(session, job, ring=settings.broker_url is not None)
    audit.about(session, "sweep", sweep_id, jobs=len(going))
    return _members(session, found.sweep, settings)


def _locked(session: Session, sweep_id: str) -> Sequence[Job]:
    """The jobs that can be cancelled: those that wait last, as a job locks those behind it."""
    over = (*ENDED, State.PACKAGING)
    return session.scalars(
        select(Job)
        .where(Job.sweep_id == sweep_id, Job.state.not_in(over))
        .order_by(Job.waits_for.is_not(None), Job.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()


def _members(session: Session, sweep: Sweep, settings: Settings) -> Members:
    rows = session.execute(
        select(Job, Student)
        .outerjoin(Student, Student.job_id == Job.id)
        .where(Job.sweep_id == sweep.id)
        .order_by(Job.created_at, Job.id)
        .execution_options(populate_existing=True)
    ).all()
    jobs = [row[0] for row in rows]
    students = {row[0].id: row[1] for row in rows if row[1] is not None}
    return Members(sweep, jobs, queue.places(session, jobs, settings.worker_patience), students)
