"""Quotas: what one owner may have waiting, stored, and spent. All work in the caller's transaction.

What is asked for is counted and then made in one transaction, under a lock of the owner's, so that
two requests never both take the last place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, ColumnElement, cast, func, or_, select, true
from sqlalchemy.orm import Session

from app.db import now
from app.errors import ErrorItem, QuotaExceededError
from app.jobs.moves import spent
from app.jobs.states import HELD, State
from app.models import Dataset, Job, Model, Student, Upload
from app.settings import Settings

KIND = "distil"
WINDOW = timedelta(days=30)
WAITING_SECONDS = 60  # after which a queue may have moved
STORED_SECONDS = 3600  # stored bytes go only when somebody deletes them


@dataclass(frozen=True)
class Use:
    """A quota: its limit, None where there is none, and what of it is used."""

    name: str
    limit: float | None
    used: float

    def leaves(self, wanted: float) -> bool:
        """Whether `wanted` more are within it."""
        return self.limit is None or self.used + wanted <= self.limit


def waiting_jobs(session: Session, owner: str, settings: Settings) -> Use:
    """Jobs that are queued or paused."""
    waiting = (State.QUEUED, State.PAUSED)
    query = select(func.count()).where(Job.owner == owner, Job.kind == KIND, Job.state.in_(waiting))
    return Use("waiting_jobs", settings.quota_waiting_jobs or None, session.scalar(query) or 0)


def stored_bytes(session: Session, owner: str, settings: Settings) -> Use:
    """The uploads that became datasets, those that come in at full length, models and students.

    What was deleted counts until it is freed: till then the bytes are there.
    """
    datasets = select(func.sum(Dataset.upload_bytes)).where(Dataset.owner == owner)
    uploads = select(func.sum(Upload.length_bytes)).where(
        Upload.owner == owner, Upload.expires_at > now(session)
    )
    postgresql = session.get_bind().dialect.name == "postgresql"
    each = func.json_array_elements if postgresql else func.json_each
    file = each(Student.files).table_valued("value")
    size = (
        func.json_extract_path_text(file.c.value, "bytes")
        if postgresql
        else func.json_extract(file.c.value, "$.bytes")
    )
    students = (
        select(func.sum(cast(size, BigInteger)))
        .select_from(Student)
        .join(file, true())
        .where(Student.owner == owner)
    )
    models = select(func.sum(Model.bytes)).where(*_kept(owner))
    counted = (datasets, uploads, models, students)
    used = sum(int(session.scalar(query) or 0) for query in counted)
    return Use("stored_bytes", settings.quota_stored_bytes or None, used)


def own_models(session: Session, owner: str, settings: Settings) -> Use:
    """Uploaded foundations whose file is there: what was deleted counts until it is freed."""
    query = select(func.count()).select_from(Model).where(*_kept(owner))
    return Use("own_models", settings.quota_own_models or None, session.scalar(query) or 0)


def _kept(owner: str) -> tuple[ColumnElement[bool], ...]:
    return Model.owner == owner, Model.file_key.is_not(None)


def device_hours(session: Session, owner: str, settings: Settings) -> Use:
    """Hours of devices' work on jobs that haven't ended, or have in the last 30 days."""
    since = now(session) - WINDOW
    mine = (Job.owner == owner, Job.kind == KIND)
    ended = session.scalar(
        select(func.sum(Job.spent_seconds * Job.devices)).where(
            *mine, Job.state.not_in(HELD), or_(Job.ended_at.is_(None), Job.ended_at > since)
        )
    )
    going_on = session.scalars(select(Job).where(*mine, Job.state.in_(HELD)))
    seconds = float(ended or 0.0) + sum(spent(job) * job.devices for job in going_on)
    return Use("device_hours", settings.quota_device_hours or None, round(seconds / 3600, 4))


def uses(session: Session, owner: str, settings: Settings) -> list[Use]:
    """Every quota of an owner."""
    every = (waiting_jobs, stored_bytes, own_models, device_hours)
    return [count(session, owner, settings) for count in every]


def admit_job(session: Session, owner: str, settings: Settings) -> None:
    """Raise QuotaExceededError where one more job of the owner's would be too many."""
    alone(session, owner)
    for excess in job_excesses(session, owner, settings):
        raise excess


def job_excesses(
    session: Session, owner: str, settings: Settings, wanted: int = 1
) -> list[QuotaExceededError]:
    """Each quota that `wanted` more jobs of the owner's would be too many for."""
    found = []
    waiting = waiting_jobs(session, owner, settings)
    if not waiting.leaves(wanted):
        found.append(_exceeded(waiting, "waiting jobs", WAITING_SECONDS))
    hours = device_hours(session, owner, settings)
    if hours.limit is not None and hours.used >= hours.limit:
        wait = _until_free(session, owner, hours.used - hours.limit)
        found.append(_exceeded(hours, "device hours in 30 days", wait))
    return found


def admit_bytes(session: Session, owner: str, wanted: int, settings: Settings) -> None:
    """Raise QuotaExceededError where so many bytes more of the owner's would be too many."""
    alone(session, owner)
    stored = stored_bytes(session, owner, settings)
    if not stored.leaves(wanted):
        raise _exceeded(stored, "stored bytes", STORED_SECONDS)


def admit_model(session: Session, owner: str, wanted: int, settings: Settings) -> None:
    """Raise QuotaExceededError where one more model, of so many bytes, would be too much."""
    admit_bytes(session, owner, wanted, settings)
    models = own_models(session, owner, settings)
    if not models.leaves(1):
        raise _exceeded(models, "own models", STORED_SECONDS)


def alone(session: Session, owner: str) -> None:
    """Nobody else counts for this owner until the transaction ends."""
    if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer at a time anyway
        session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"quotas of {owner}"))))


def _until_free(session: Session, owner: str, hours: float) -> int:
    """Seconds until more than `hours` of what counts now no longer do, as far as that is known."""
    moment = now(session)
    rows = session.execute(
        select(Job.ended_at, Job.spent_seconds * Job.devices)
        .where(Job.owner == owner, Job.kind == KIND, Job.ended_at > moment - WINDOW)
        .order_by(Job.ended_at)
    )
    leaves = moment + timedelta(days=1)  # nothing ended yet: only what goes on counts
    for ended_at, seconds in rows:
        assert isinstance(ended_at, datetime)
        leaves, hours = ended_at + WINDOW, hours - seconds / 3600
        if hours < 0:
            break
    return max(1, math.ceil((leaves - moment).total_seconds()))


def _exceeded(use: Use, what: str, wait: int) -> QuotaExceededError:
    detail = f"You have {use.used:.12g} {what}, and may have {use.limit:.12g}."
    item = ErrorItem(pointer="", code=use.name, detail=detail, limit=use.limit, used=use.used)
    return QuotaExceededError(detail, [item], headers={"Retry-After": str(wait)})
