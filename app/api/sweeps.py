"""/v1/sweeps: many students at once, which see each view through one foundation's eyes once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, Any

from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field, StringConstraints, field_validator
from sqlalchemy.orm import Session

from app.access.scopes import Scope
from app.api import idempotency, pages
from app.api.core import CallerDep, CoreDep
from app.api.guard import fails, needs, router
from app.api.pages import After, Limit
from app.api.schemas import DryRun, MetadataName, MetadataValue, Printable
from app.errors import (
    ConflictError,
    DatasetNotReadyError,
    GoneError,
    IdempotencyKeyReusedError,
    ModelNotReadyError,
    QuotaExceededError,
    UnknownModelError,
)
from app.jobs.service import Terms
from app.jobs.states import ENDED
from app.models import Job
from app.plans import pareto, sweeps
from app.plans.sweeps import Members, Plan
from app.plans.tables import Sweep
from app.settings import DEFAULT_QUEUE
from tdmr.config import DEFAULT_BASELINES, Baseline, DistillOptions, JobSpec, Options
from tdmr.wire.base import Page
from tdmr.wire.jobs import Budget
from tdmr.wire.plans import DryRunOut
from tdmr.wire.sweeps import SweepOut, SweepSummary

routes = router()

ModelName = Annotated[str, StringConstraints(min_length=1, max_length=300)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200), Printable]


class SweepIn(Options):
    """An order for many students of one foundation on one dataset."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "which student?",
                    "dataset_id": "ds_01aa5b3c1d2e0123456789abcdef",
                    "foundation": "letters_vit",
                    "students": ["test_resnet", "mobilenetv3_small_100", "resnet18"],
                    "options": {"seed": 0},
                    "baselines": ["scratch"],
                }
            ]
        }
    )

    name: Name | None = None
    dataset_id: str = Field(pattern=r"^[A-Za-z0-9_]{1,40}$", description="A dataset that is ready.")
    foundation: ModelName
    students: tuple[ModelName, ...] = Field(min_length=1, max_length=32)
    options: DistillOptions = DistillOptions()
    baselines: tuple[Baseline, ...] = DEFAULT_BASELINES
    budget: Budget | None = Field(None, description="Of each job; null: no limit.")
    priority: int = Field(0, ge=-100, le=100, description="Of each job, among your own.")
    queue: str = Field(DEFAULT_QUEUE, max_length=40, description="One of the service's queues.")
    metadata: dict[MetadataName, MetadataValue] = Field(
        default_factory=dict, max_length=32, description="Yours; every job has it."
    )

    @field_validator("students", "baselines")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("names must not repeat")
        return names

    def plan(self) -> Plan:
        """What is to be made."""
        named = {"foundation": self.foundation, "student": self.students[0]}
        given = self.model_dump(include={"options", "baselines"}, exclude_unset=True)
        seconds = self.budget.max_seconds if self.budget else None
        return Plan(
            dataset_id=self.dataset_id,
            spec=JobSpec.model_validate({**named, **given}),
            students=self.students,
            terms=Terms(queue=self.queue, priority=self.priority, max_seconds=seconds),
            name=self.name,
            metadata=self.metadata,
        )


@routes.post(
    "/sweeps",
    status_code=201,
    response_model=SweepOut,
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
def create_sweep(
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    order: SweepIn,
    idempotency_key: idempotency.Key = None,
    dry_run: DryRun = False,
) -> object:
    """Order many students. The first job shows the views to the foundation; the others wait for it.

    Everything is ordered or nothing; what is wrong is said as for a job, and a dry run answers
    as a job's does: its estimate is of all jobs together.
    """
    if dry_run:
        with core.database.read() as session:
            said = sweeps.dry_run(session, caller.owner, order.plan(), core.settings)
        return JSONResponse(said.model_dump(mode="json"))
    content = json.dumps(order.model_dump(mode="json", exclude_unset=True), sort_keys=True)
    asked = idempotency.asked(idempotency_key, "POST /v1/sweeps", content)

    def make(session: Session) -> Members:
        return sweeps.create(
            session,
            owner=caller.owner,
            plan=order.plan(),
            idempotency=asked,
            settings=core.settings,
        )

    def find(session: Session, job: Job) -> Members:
        return sweeps.of_job(session, job, core.settings)

    found, replayed = idempotency.once(core, caller.owner, asked, make, find)
    response.headers["Location"] = f"/v1/sweeps/{found.sweep.id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return describe(found)


@routes.get("/sweeps")
@needs(Scope.JOBS_READ)
def list_sweeps(
    response: Response, core: CoreDep, caller: CallerDep, limit: Limit = 20, after: After = None
) -> Page[SweepSummary]:
    """Your sweeps, the newest first."""
    with core.database.read() as session:
        found = sweeps.newest(session, caller.owner, pages.after_id(after), limit + 1)
    rows, has_more = pages.cut(found, limit)
    cursor = pages.encode(rows[-1][0].id) if has_more else None
    if cursor is not None:
        pages.link_next(response, "/v1/sweeps", {"limit": limit, "after": cursor})
    data = [SweepSummary(**_summary(sweep, jobs)) for sweep, jobs in rows]
    return Page(data=data, has_more=has_more, next_cursor=cursor)


@routes.get("/sweeps/{sweep_id}")
@needs(Scope.JOBS_READ)
def get_sweep(core: CoreDep, caller: CallerDep, sweep_id: str) -> SweepOut:
    """A sweep: where its jobs are, and the Pareto table of the students so far."""
    with core.database.read() as session:
        return describe(sweeps.get(session, caller.owner, sweep_id, core.settings))


@routes.post("/sweeps/{sweep_id}/cancel", status_code=202)
@needs(Scope.JOBS_WRITE)
@fails(ConflictError)
def cancel_sweep(core: CoreDep, caller: CallerDep, sweep_id: str) -> SweepOut:
    """Call off every job of a sweep that goes on, as `POST /v1/jobs/{id}/cancel` does each."""
    with core.database.write() as session:
        found = sweeps.cancel(session, caller.owner, sweep_id, core.settings)
    core.relay.nudge()
    return describe(found)


def describe(found: Members) -> SweepOut:
    """A sweep in full."""
    students = list(found.students.values())
    shown = [(each.metrics.get("foundation") or {}).get("forwards") for each in students]
    known = [each for each in shown if each is not None]
    return SweepOut(
        **_summary(found.sweep, found.jobs),
        options=DistillOptions.model_validate(found.sweep.options),
        baselines=found.sweep.baselines,
        jobs=[_job(found, job) for job in found.jobs],
        foundation_forwards=sum(known) if known else None,
        result=pareto.table([pareto.of_student(each) for each in students]),
    )


def _summary(sweep: Sweep, jobs: list[Job]) -> dict[str, Any]:
    names = ("id", "name", "dataset_id", "foundation", "students", "created_at")
    ended = all(job.state in ENDED for job in jobs)
    return {
        **{name: getattr(sweep, name) for name in names},
        "status": "ended" if ended else "open",
        "counts": Counter(job.state for job in jobs),
    }


def _job(found: Members, job: Job) -> dict[str, Any]:
    place, student = found.places.get(job.id), found.students.get(job.id)
    return {
        "job_id": job.id,
        "student": job.spec["student"],
        "status": job.state,
        "waiting_reason": place.reason if place else None,
        "retry_of": job.retry_of,
        "failure_code": job.failure["code"] if job.failure else None,
        "student_id": student.id if student else None,
    }
