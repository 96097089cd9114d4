"""/v1/audit-log and /v1/quotas: what was done with your keys, and what you may still do."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from app import audit
from app.access import quotas
from app.access.scopes import Scope
from app.api import pages
from app.api.core import CallerDep, CoreDep
from app.api.guard import needs, router
from app.api.pages import After, Limit
from tdmr.wire.access import AuditOut, QuotaOut, QuotasOut
from tdmr.wire.base import Page

routes = router()

SubjectId = Annotated[
    str | None, Query(pattern=r"^[A-Za-z0-9_]{1,40}$", description="Only what was done to this.")
]
Action = Annotated[
    str | None, Query(pattern=r"^[a-z_]{1,100}$", description="Only this, such as `create_job`.")
]


@routes.get("/audit-log")
@needs(Scope.AUDIT_READ)
def list_audit_log(
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    subject_id: SubjectId = None,
    action: Action = None,
    limit: Limit = 20,
    after: After = None,
) -> Page[AuditOut]:
    """Who changed what, the newest first. What was refused isn't here: it changed nothing."""
    only = {"subject_id": subject_id, "action": action}
    with core.database.read() as session:
        found = audit.newest(session, caller.owner, pages.after_id(after), limit + 1, **only)
    rows, has_more = pages.cut(found, limit)
    cursor = pages.encode(rows[-1].id) if has_more else None
    if cursor is not None:
        pages.link_next(response, "/v1/audit-log", {**only, "limit": limit, "after": cursor})
    data = [
        AuditOut.model_validate({name: getattr(row, name) for name in AuditOut.model_fields})
        for row in rows
    ]
    return Page(data=data, has_more=has_more, next_cursor=cursor)


@routes.get("/quotas")
@needs(Scope.JOBS_READ)
def get_quotas(core: CoreDep, caller: CallerDep) -> QuotasOut:
    """Your quotas, and what of each is used."""
    with core.database.read() as session:
        found = quotas.uses(session, caller.owner, core.settings)
    return QuotasOut.model_validate(
        {use.name: QuotaOut(limit=use.limit, used=use.used) for use in found}
    )
