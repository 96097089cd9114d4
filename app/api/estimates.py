"""/v1/estimates: how good the estimates were that jobs were ordered with."""

from __future__ import annotations

from statistics import median

from fastapi import Response

from app.access.scopes import Scope
from app.api import pages
from app.api.core import CallerDep, CoreDep
from app.api.guard import needs, router
from app.api.pages import After, Limit
from app.models import Job
from app.plans import estimates
from tdmr.wire.plans import EstimateOut, EstimatesOut

routes = router()


@routes.get("/estimates")
@needs(Scope.JOBS_READ)
def list_estimates(
    response: Response, core: CoreDep, caller: CallerDep, limit: Limit = 20, after: After = None
) -> EstimatesOut:
    """Your jobs whose estimate can be held against what they took, the newest first."""
    with core.database.read() as session:
        found = estimates.history(session, caller.owner, pages.after_id(after), limit + 1)
        errors = estimates.errors(session, caller.owner)
        count = estimates.count(session, caller.owner)
    rows, has_more = pages.cut(found, limit)
    cursor = pages.encode(rows[-1].id) if has_more else None
    if cursor is not None:
        pages.link_next(response, "/v1/estimates", {"limit": limit, "after": cursor})
    return EstimatesOut(
        data=[_described(job) for job in rows],
        has_more=has_more,
        next_cursor=cursor,
        count=count,
        median_absolute_error=median(map(abs, errors)) if errors else None,
    )


def _described(job: Job) -> EstimateOut:
    return EstimateOut(**(job.estimate or {}), job_id=job.id, created_at=job.created_at)
