"""/v1/jobs: order a student, watch it being made, stop it and go on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import Body, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.access.keys import Caller
from app.access.limits import Cost
from app.access.scopes import Scope
from app.api import conditional, idempotency, pages, preferences, retrying, streaming
from app.api.core import CallerDep, Core, CoreDep, core_of
from app.api.glance import Found, Said
from app.api.guard import admit, by_itself, fails, needs, router
from app.api.middleware import WAITED
from app.api.pages import After, AfterNumber, Limit
from app.api.schemas import DryRun, JobIn, RetryIn
from app.errors import (
    BusyError,
    ConflictError,
    DatasetNotReadyError,
    GoneError,
    IdempotencyKeyReusedError,
    ModelNotReadyError,
    QuotaExceededError,
    UnknownModelError,
)
from app.jobs import service
from app.jobs.moves import spent
from app.jobs.service import View
from app.models import Job
from app.plans import orders
from app.settings import Settings
from tdmr.wire.base import Page
from tdmr.wire.jobs import EventOut, JobOut, Status
from tdmr.wire.plans import DryRunOut

routes = router()

POLL_SECONDS = "2"  # between two looks, as a hint


@routes.post(
    "/jobs",
    status_code=201,
    response_model=JobOut,
    responses={200: {"model": DryRunOut, "description": "A dry run: what there is to say."}},
)
@needs(Scope.JOBS_WRITE)
@fails(
    DatasetNotReadyError,
    GoneError,
    IdempotencyKeyReusedError,
    ModelNotReadyError,
    QuotaExceededError,
    UnknownModelError,
)
def create_job(
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    order: JobIn,
    idempotency_key: idempotency.Key = None,
    dry_run: DryRun = False,
) -> object:
    """Order a student from a dataset that is ready, or ask what would become of the order.

    A dry run is answered with 200, whatever it finds; `ok` says whether the order would be taken.
    """
    if dry_run:
        with core.database.read() as session:
            said = orders.dry_run(session, caller.owner, order.order(), core.settings)
        return JSONResponse(said.model_dump(mode="json"))
    content = json.dumps(order.model_dump(mode="json", exclude_unset=True), sort_keys=True)
    asked = idempotency.asked(idempotency_key, "POST /v1/jobs", content)

    def make(session: Session) -> View:
        return orders.place(
            session,
            owner=caller.owner,
            order=order.order(),
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
        found = service.newest(session, caller.owner, before, status, limit + 1)
    rows, has_more = pages.cut(found, limit)
    views = [View(job, core.boards.place(job), student) for job, student in rows]
    cursor = pages.encode(views[-1].job.id) if has_more else None
    if cursor is not None:
        query: dict[str, str | int | None] = {"limit": limit, "after": cursor, "status": status}
        pages.link_next(response, "/v1/jobs", query)
    return Page(data=[describe(view) for view in views], has_more=has_more, next_cursor=cursor)


@routes.get(
    "/jobs/{job_id}", response_model=JobOut, openapi_extra={"parameters": [preferences.PREFER]}
)
@needs(Scope.JOBS_READ)
@fails(GoneError)
@by_itself
async def get_job(request: Request, job_id: str) -> Response:
    """A job: its stage, its losses, the time left, and how it ended."""
    core, seen = await core_of(request), request.headers.get("if-none-match")
    wait = preferences.wait_seconds(request)
    said = await _in_reader(core, partial(_admitted, core, request, job_id))
    if wait:
        began = time.perf_counter()
        said = await _wait(core, request, job_id, said, seen, wait)
        request.scope["state"][WAITED] = time.perf_counter() - began
    headers = {"ETag": said.etag}
    if said.open:
        headers["Retry-After"] = POLL_SECONDS
    if wait:
        headers["Preference-Applied"] = f"wait={wait}"
    if conditional.matches(seen, said.etag):
        return Response(status_code=304, headers=headers)
    return Response(said.body, media_type="application/json", headers=headers)


def _admitted(core: Core, request: Request, job_id: str) -> Said:
    found: list[Found] = []

    def identify() -> Caller:
        found.append(core.glances.find(request.state.key, job_id))
        return found[0].caller

    admit(core, request, identify, Scope.JOBS_READ, Cost.READ)
    return core.glances.say(found[0])


def _again(core: Core, request: Request, job_id: str) -> Said:
    return core.glances.say(core.glances.find(request.state.key, job_id))


async def _in_reader(core: Core, look: Callable[[], Said]) -> Said:
    return await core.lookout.at(look)


async def _wait(
    core: Core, request: Request, job_id: str, said: Said, seen: str | None, seconds: int
) -> Said:
    """What is said of the job once it has ended, or is no longer what the client has `seen`."""
    until = time.monotonic() + seconds
    while said.open and (seen is None or conditional.matches(seen, said.etag)):
        last = await core.watch.last(job_id)
        said = await _in_reader(core, partial(_again, core, request, job_id))
        if not said.open or (seen is not None and not conditional.matches(seen, said.etag)):
            break
        if not await core.watch.beyond(job_id, last, until - time.monotonic()):
            break
    return said


@routes.get(
    "/jobs/{job_id}/events",
    response_model=Page[EventOut],
    responses={200: {"content": {streaming.MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
@needs(Scope.JOBS_READ)
@fails(BusyError, GoneError)
async def list_events(
    request: Request,
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    job_id: str,
    limit: Limit = 100,
    after: AfterNumber = None,
) -> object:
    """A job's log, in order. `next_cursor` is always given, so that a reader can go on later.

    With `Accept: text/event-stream` it's a stream that ends with the job: each entry is an event
    with its `seq` as id, from which `Last-Event-ID` goes on. The last event is `end`.
    """
    number = pages.after_number(after)
    if streaming.is_wanted(request):
        number = max(number, streaming.last_seen(request))
        return await streaming.respond(core, request, job_id, number)
    return await run_in_threadpool(_page_of_events, response, core, caller, job_id, limit, number)


def _page_of_events(
    response: Response, core: Core, caller: Caller, job_id: str, limit: int, number: int
) -> Page[EventOut]:
    with core.database.read() as session:
        found = service.events(session, caller.owner, job_id, number, limit + 1, core.settings)
    rows, has_more = pages.cut(found, limit)
    cursor = pages.encode(str(rows[-1].seq if rows else number))
    if has_more:
        path = f"/v1/jobs/{job_id}/events"
        pages.link_next(response, path, {"limit": limit, "after": cursor})
    data = [streaming.entry(row) for row in rows]
    return Page(data=data, has_more=has_more, next_cursor=cursor)


@routes.post("/jobs/{job_id}/cancel", status_code=202)
@needs(Scope.JOBS_WRITE)
@fails(ConflictError, GoneError)
def cancel_job(core: CoreDep, caller: CallerDep, job_id: str) -> JobOut:
    """Call a job off. A running one is `cancelled` only when its process is gone.

    What it has learnt by then is packaged: `student_id` appears, and `partial` says so.
    """
    return _change(core, service.cancel, caller.owner, job_id)


@routes.post("/jobs/{job_id}/pause", status_code=202)
@needs(Scope.JOBS_WRITE)
@fails(ConflictError, GoneError)
def pause_job(core: CoreDep, caller: CallerDep, job_id: str) -> JobOut:
    """Stop a job behind a checkpoint, and free its device until it is resumed."""
    return _change(core, service.pause, caller.owner, job_id)


@routes.post("/jobs/{job_id}/resume", status_code=202)
@needs(Scope.JOBS_WRITE)
@fails(ConflictError, GoneError)
def resume_job(core: CoreDep, caller: CallerDep, job_id: str) -> JobOut:
    """Queue a paused job again; it goes on from its checkpoint."""
    return _change(core, service.resume, caller.owner, job_id)


@routes.post("/jobs/{job_id}/retry", status_code=202)
@needs(Scope.JOBS_WRITE)
@fails(
    ConflictError,
    DatasetNotReadyError,
    GoneError,
    IdempotencyKeyReusedError,
    ModelNotReadyError,
    QuotaExceededError,
    UnknownModelError,
)
def retry_job(
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    job_id: str,
    patch: Annotated[RetryIn, Body(default_factory=RetryIn)],
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
        return orders.place(
            session,
            owner=caller.owner,
            order=order.order(),
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


def rendered(view: View) -> bytes:
    """A job in full, as it is sent."""
    return describe(view).model_dump_json().encode()


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
            "measures": progress.get("measures", {}),
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
            "sweep_id": job.sweep_id,
            "estimate": job.estimate,
            "created_at": job.created_at,
            "started_at": job.started_at,
            "ended_at": job.ended_at,
            "cancel_requested_at": job.cancel_requested_at,
            "pause_requested_at": job.pause_requested_at,
        }
    )
