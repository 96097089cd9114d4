"""A job at a glance: who asks, and how the job is, in one statement.

For those who ask every second. What was said of a job is kept, and said again as long as its row
is the same to the byte; the row is read every time.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import ColumnElement, and_, bindparam, select

from app.access import keys
from app.access.keys import Caller
from app.db import Database
from app.deletion import gone
from app.errors import NotFoundError
from app.jobs.boards import Boards
from app.jobs.queue import Place
from app.jobs.service import KIND, View
from app.jobs.states import State
from app.models import ApiKey, Job, Student
from app.statement import Raw, Statement

KEPT = 512  # answers, which with their rows have some 7 kB

_KEY: tuple[ColumnElement[Any], ...] = (
    ApiKey.id.label("key_id"),
    ApiKey.owner.label("key_owner"),
    ApiKey.scopes.label("key_scopes"),
    keys.is_live().label("key_live"),
)
_STUDENT: tuple[ColumnElement[Any], ...] = (
    Student.id.label("student_id"),
    Student.partial.label("student_partial"),
)
_JOB = tuple(Job.__table__.columns)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and its strong ETag."""

    body: bytes
    etag: str
    open: bool  # whether the job goes on


@dataclass(frozen=True, slots=True)
class Found:
    """Who asks, and the row that speaks of them and of the job."""

    caller: Caller
    row: Raw


class Glances:
    """Answers for `GET /v1/jobs/{id}`; `describe` makes one of a view. Safe to share by threads."""

    def __init__(
        self, database: Database, boards: Boards, describe: Callable[[View], bytes]
    ) -> None:
        self._statement = Statement(
            database,
            select(*_KEY, *_STUDENT, *_JOB)
            .select_from(ApiKey)
            .outerjoin(
                Job,
                and_(Job.id == bindparam("job_id"), Job.owner == ApiKey.owner, Job.kind == KIND),
            )
            .outerjoin(Student, Student.job_id == Job.id)
            .where(ApiKey.sha256 == bindparam("sha256")),
        )
        self._state = self._statement.names.index("state")
        self._id = self._statement.names.index("id")
        self._deleted = self._statement.names.index("deleted_at")
        self._boards = boards
        self._describe = describe
        self._kept: OrderedDict[str, tuple[Any, Said]] = OrderedDict()
        self._lock = Lock()

    def connect(self) -> None:
        """Open this thread's connection to the database ahead of its first question."""
        self._statement.connect()

    def find(self, key: str, job_id: str) -> Found:
        """Who holds the key with this digest, and the row of the job if it is theirs.

        Raises UnauthorizedError.
        """
        row = self._statement.one(sha256=key, job_id=job_id)
        value = self._statement.value
        if row is None or not value(row, "key_live"):
            raise keys.refused()
        scopes = frozenset(value(row, "key_scopes"))
        return Found(Caller(value(row, "key_id"), value(row, "key_owner"), scopes), row)

    def say(self, found: Found) -> Said:
        """What is to be said of a job. Raises NotFoundError and GoneError."""
        row = found.row
        if row[self._state] is None:
            raise NotFoundError("There is no such job.")
        if row[self._deleted] is not None:
            raise gone(Job, self._statement.value(row, "kept_until"))
        job_id = row[self._id]
        place = self._boards.place(self._decoded(row)) if self._waits(row) else None
        same = (row[len(_KEY) :], place)
        with self._lock:
            kept = self._kept.get(job_id)
            if kept is not None and kept[0] == same:
                self._kept.move_to_end(job_id)
                return kept[1]
        said = self._say(row, place)
        with self._lock:
            self._kept[job_id] = (same, said)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return said

    def close(self) -> None:
        """Give the connections back."""
        self._statement.close()

    def _waits(self, row: Raw) -> bool:
        return bool(row[self._state] == State.QUEUED)

    def _decoded(self, row: Raw) -> Any:
        values = self._statement.decoded(row)
        values["user_metadata"] = values["metadata"]
        return SimpleNamespace(**values)

    def _say(self, row: Raw, place: Place | None) -> Said:
        job = self._decoded(row)
        student = SimpleNamespace(id=job.student_id, partial=job.student_partial)
        view = View(cast("Job", job), place, cast("Student", student) if student.id else None)
        body = self._describe(view)
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        return Said(body, etag, open=job.ended_at is None)
