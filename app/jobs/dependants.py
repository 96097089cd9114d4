"""What still needs a job that has ended: the packaging of its student, and retries."""

from __future__ import annotations

from sqlalchemy import ColumnElement, String, cast, exists
from sqlalchemy.orm import aliased

from app.jobs.states import ENDED
from app.models import Job


def packaging() -> ColumnElement[bool]:
    """Whether a student is still being made of a job, whatever became of the job itself."""
    package = aliased(Job)
    return exists().where(package.parent_id == Job.id, package.state.not_in(ENDED))


def inherited() -> ColumnElement[bool]:
    """Whether a retry would go on from the stored checkpoint of a job."""
    heir = aliased(Job)
    return exists().where(
        heir.owner == Job.owner,
        heir.kind == Job.kind,
        heir.retry_of.is_not(None),
        heir.id != Job.id,
        cast(heir.checkpoint, String).like("%checkpoints/" + Job.id + "/%"),
    )
