"""/v1/jobs: order a student, watch it being made, stop it and go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated

from fastapi import Query, Response
from sqlalchemy.orm import Session

from app.access import quotas
from app.access.scopes import Scope
from app.api import idempotency, pages, retrying
from app.api.core import CallerDep, CoreDep
from app.api.guard import needs, router
from app.api.pages import After, Limit
from app.api.schemas import JobIn, RetryIn
from app.jobs import service
from app.jobs.moves import spent
from app.jobs.service import View
from app.models import Event, Job
from app.settings import Settings
from tdmr.wire.base import Page
from tdmr.wire.jobs import EventOut, JobOut, Status

routes = router()


@routes.post("/jobs", status_code=201)
@needs(Scope.JOBS_WRITE)
def create_job(
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    order: JobIn,
    idempotency_key: idempotency.Key = None,
) -> JobOut:
    """Order a student from a dataset that is ready."""
    content = json.dumps(order.model_dump(mode="json", exclude_unset=True), sort_keys=True)
    asked = idempotency.asked(idempotency_key, "POST /v1/jobs", content)

    def make(session: Session) -> View:
        quotas.admit_job(session, caller.owner, core.settings)
        return service.create(
            session,
            owner=caller.owner,
            dataset_id=order.dataset_id,
            spec=order.spec(),
            terms=order.terms(),
            metadata=order.metadata,
            idempotency=asked,
            settings=core.settings,
        )

    def find(session: Session, job: Job) -> View:
        return service.get(session, caller.owner, job.id, core.settings)

    view, replayed = idempotency.once(core, caller.owner, asked, make, find)
    response.headers["Location"] = f"/v1/jobs/{view.job.id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return describe(view)


@routes.get("/jobs")
@needs(Scope.JOBS_READ)
def list_jobs(
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    limit: Limit = 20,
    after: After = None,
    status: Annotated[Status | None, Query(description="Only jobs in this state.")] = None,
) -> Page[JobOut]:
    """Your jobs, the newest first."""
    with core.database.read() as session:
        before = pages.after_id(after)
        found = service.newest(session, caller.owner, before, status, limit + 1, core.settings)
    views, has_more = pages.cut(found, limit)
    cursor = pages.encode(views[-1].job.id) if has_more else None
    if cursor is not None:
        query: dict[str, str | int | None] = {"limit": limit, "after": cursor, "status": status}
        pages.link_next(response, "/v1/jobs", query)
    return Page(data=[describe(view) for view in views], has_more=has_more, next_cursor=cursor)


@routes.get("/jobs/{job_id}")
@needs(Scope.JOBS_READ)
def get_job(core: CoreDep, caller: CallerDep, job_id: str) -> JobOut:
    """A job: its stage, its losses, the time left, and how it ended."""
    with core.database.read() as session:
        return describe(service.get(session, caller.owner, job_id, core.settings))


@routes.get("/jobs/{job_id}/events")
@needs(Scope.JOBS_READ)
def list_events(
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    job_id: str,
    limit: Limit = 100,
    after: After = None,
) -> Page[EventOut]:
    """A job's log, in order. `next_cursor` is always given, so that a reader can go on later."""
    number = pages.after_number(after)
    with core.database.read() as session:
        found = service.events(session, caller.owner, job_id, number, limit + 1, core.settings)
    rows, has_more = pages.cut(found, limit)
    cursor = pages.encode(str(rows[-1].seq if rows else number))
    if has_more:
        path = f"/v1/jobs/{job_id}/events"
        pages.link_next(response, path, {"limit": limit, "after": cursor})
    return Page(data=[_event(row) for row in rows], has_more=has_more, next_cursor=cursor)


@routes.post("/jobs/{job_id}/cancel", status_code=202)
@needs(Scope.JOBS_WRITE)
def cancel_job(core: CoreDep, caller: CallerDep, job_id: str) -> JobOut:
    """Call a job off. A running one is `cancelled` only when its process is gone.

    What it has learnt by then is packaged: `student_id` appears, and `partial` says so.
    """
    return _change(core, service.cancel, caller.owner, job_id)


@routes.post("/jobs/{job_id}/pause", status_code=202)
@needs(Scope.JOBS_WRITE)
def pause_job(core: CoreDep, caller: CallerDep, job_id: str) -> JobOut:
    """Stop a job behind a checkpoint, and free its device until it is resumed."""
    return _change(core, service.pause, caller.owner, job_id)


@routes.post("/jobs/{job_id}/resume", status_code=202)
@needs(Scope.JOBS_WRITE)
def resume_job(core: CoreDep, caller: CallerDep, job_id: str) -> JobOut:
    """Queue a paused job again; it goes on from its checkpoint."""
    return _change(core, service.resume, caller.owner, job_id)


@routes.post("/jobs/{job_id}/retry", status_code=202)
@needs(Scope.JOBS_WRITE)
def retry_job(
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    job_id: str,
    patch: RetryIn,
    idempotency_key: idempotency.Key = None,
) -> JobOut:
    """Order again what failed, was cancelled or ran out of budget, with changes if you like.

    Gives a new job. With the same options it goes on from the old one's checkpoint.
    """
    changes = patch.model_dump(mode="json", exclude_unset=True)
    address = f"POST /v1/jobs/{job_id}/retry"
    asked = idempotency.asked(idempotency_key, address, json.dumps(changes, sort_keys=True))

    def make(session: Session) -> View:
        old = service.retryable(session, caller.owner, job_id, core.settings)
        order = retrying.patched(old, changes)
        quotas.admit_job(session, caller.owner, core.settings)
        return service.create(
            session,
            owner=caller.owner,
            dataset_id=old.dataset_id,
            spec=order.spec(),
            terms=order.terms(),
            metadata=old.user_metadata,
            idempotency=asked,
            settings=core.settings,
            retry_of=old,
        )

    def find(session: Session, job: Job) -> View:
        return service.get(session, caller.owner, job.id, core.settings)

    view, replayed = idempotency.once(core, caller.owner, asked, make, find)
    response.headers["Location"] = f"/v1/jobs/{view.job.id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return describe(view)


def _change(
    core: CoreDep,
    change: Callable[[Session, str, str, Settings], View],
    owner: str,
    job_id: str,
) -> JobOut:
    with core.database.write() as session:
        view = change(session, owner, job_id, core.settings)
    core.relay.nudge()
    return describe(view)


def describe(view: View) -> JobOut:
    """A job in full."""
    job, progress = view.job, view.job.progress or {}
    return JobOut.model_validate(
        {
            "id": job.id,
            "dataset_id": job.dataset_id,
            "status": job.state,
            **job.spec,
            "metadata": job.user_metadata,
            "stage": progress.get("stage"),
            "step": progress.get("step"),
            "steps": progress.get("steps"),
            "losses": progress.get("losses", {}),
            "eta_seconds": progress.get("eta_seconds"),
            "queue": job.queue,
            "queue_position": view.place.position if view.place else None,
            "waiting_reason": view.place.reason if view.place else None,
            "priority": job.priority,
            "budget": None if job.max_seconds is None else {"max_seconds": job.max_seconds},
            "spent_seconds": round(spent(job), 3),
            "checkpoint": job.checkpoint
            and {"stage": job.checkpoint["stage"], "step": job.checkpoint["step"]},
            "attempt": job.attempt,
            "max_attempts": job.max_attempts,
            "failure": job.failure,
            "student_id": view.student.id if view.student else None,
            "partial": view.student.partial if view.student else None,
            "retry_of": job.retry_of,
            "created_at": job.created_at,
            "started_at": job.started_at,
            "ended_at": job.ended_at,
            "cancel_requested_at": job.cancel_requested_at,
            "pause_requested_at": job.pause_requested_at,
        }
    )


def _event(event: Event) -> EventOut:
    return EventOut(seq=event.seq, at=event.at, type=event.type, data=event.data)
