"""Jobs of a sweep share the views' features: one shows the views to the foundation, the rest wait.

Each that waits names the one that it waits for (`Job.waits_for`), and can't be claimed. It is let
go once that one is past the cache; where that one stops before, another takes its place. All work
in the transaction that moves the job they wait for.
"""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.jobs import log
from app.jobs.states import HELD, State
from app.models import Job, Json

SHARED = ("prepare", "cache")  # the stages whose work the others will find done
STOPPED = (State.FAILED, State.CANCELLED, State.PAUSED)
DONE = (State.PACKAGING, State.SUCCEEDED)
GOING = (State.QUEUED, *HELD)


def heard(session: Session, job: Job, progress: Json) -> None:
    """Let the others go when `progress` says that `job` is past what they share."""
    stage = (progress.get("stage") or {}).get("name")
    if job.sweep_id is not None and stage is not None and stage not in SHARED:
        let_go(session, job)


def moved(session: Session, job: Job) -> None:
    """What follows for those who wait for `job` from the state that it is in now.

    A job that goes back to the queue is still the one to wait for.
    """
    if job.state in DONE:
        let_go(session, job)
    elif job.state in STOPPED:
        _pass_on(session, job)


def line_up(session: Session, job: Job) -> None:
    """Have a job that comes back wait for the one that has taken its place, if one has."""
    others = session.scalars(select(Job).where(Job.sweep_id == job.sweep_id, Job.id != job.id))
    found = others.all()
    if any(_is_past(each) for each in (job, *found)):
        return
    going = (each for each in found if each.waits_for is None and each.state in GOING)
    job.waits_for = next((each.id for each in going), None)


def _is_past(job: Job) -> bool:
    """Whether a job has what the others need; checkpoints are of later stages alone."""
    stage = ((job.progress or {}).get("stage") or {}).get("name")
    later = stage is not None and stage not in SHARED
    return later or job.state in DONE or job.checkpoint is not None


def let_go(session: Session, job: Job) -> None:
    """Nobody waits for `job` any more."""
    waiting = update(Job).where(Job.waits_for == job.id).values(waits_for=None)
    rows = session.execute(
        waiting.returning(Job.id, Job.state).execution_options(synchronize_session=False)
    )
    for job_id, state in rows.all():
        if state == State.QUEUED:
            log.append(session, job_id, "let_go", {"by": job.id})


def _pass_on(session: Session, job: Job) -> None:
    """The next in line goes first, and the others wait for it. With none in line, all are free."""
    first = session.scalar(
        select(Job.id)
        .where(Job.waits_for == job.id, Job.state == State.QUEUED)
        .order_by(Job.priority.desc(), Job.run_after, Job.id)
        .limit(1)
    )
    if first is None:
        let_go(session, job)
        return
    session.execute(
        update(Job)
        .where(Job.waits_for == job.id, Job.id != first)
        .values(waits_for=first)
        .execution_options(synchronize_session=False)
    )
    let_go(session, job)
