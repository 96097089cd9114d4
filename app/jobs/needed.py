"""What open jobs need can't be deleted yet."""

from __future__ import annotations

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.errors import ConflictError, ErrorItem
from app.jobs.states import ENDED
from app.models import Job

MOST_NAMED = 20  # jobs that stand in the way


def check(
    session: Session,
    of: ColumnElement[bool],
    what: str,
    check_kind: str,
    refusal: type[ConflictError],
) -> None:
    """Raise `refusal` while jobs that are `of` the thing `what` haven't ended; it names them.

    Jobs of the kind `check_kind` check the thing itself: those are only to be waited for.
    """
    rows = session.scalars(select(Job).where(of, Job.state.not_in(ENDED)).order_by(Job.id))
    jobs = {job.parent_id or job.id: job for job in rows}
    if any(job.kind == check_kind for job in jobs.values()):
        raise refusal(f"The {what} is being checked.", headers={"Retry-After": "2"})
    if jobs:
        named = [
            ErrorItem(pointer="", code="needed_by_job", detail=f"{job_id} hasn't ended.")
            for job_id in jobs
        ]
        said = f"Jobs need the {what}: cancel them first, or wait for their end."
        raise refusal(said, named[:MOST_NAMED])
