"""/v1/students: how good a student is, and its files."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import Request, Response

from app.access.scopes import Scope
from app.api import downloads, pages
from app.api.core import CallerDep, Core, CoreDep
from app.api.downloads import Download
from app.api.guard import fails, needs, router
from app.api.pages import After, Limit
from app.errors import OF_STORAGE, DamagedFileError, GoneError, RangeNotSatisfiableError
from app.models import Student
from app.students import archive, service
from app.students.service import StoredFile
from tdmr.wire.base import Page
from tdmr.wire.students import FileOut, StudentOut, StudentSummary

routes = router()


def _bytes(media_type: str, *, elsewhere: bool = False) -> dict[int | str, dict[str, Any]]:
    # Of any type, a file may also be JSON.
    schema = {} if media_type == "*/*" else {"type": "string", "format": "binary"}
    content = {media_type: {"schema": schema}}
    answers: dict[int | str, dict[str, Any]] = {
        200: {"description": "The bytes.", "content": content},
        206: {"description": "The part that the Range header asks for.", "content": content},
        304: {"description": "The client's copy is still good."},
    }
    if elsewhere:
        told = "The store has the bytes: for a while, at the address in Location."
        answers[307] = {"description": told}
    return answers


@routes.get("/students")
@needs(Scope.STUDENTS_READ)
def list_students(
    response: Response, core: CoreDep, caller: CallerDep, limit: Limit = 20, after: After = None
) -> Page[StudentSummary]:
    """Your students, the newest first."""
    with core.database.read() as session:
        found = service.newest(session, caller.owner, pages.after_id(after), limit + 1)
    rows, has_more = pages.cut(found, limit)
    cursor = pages.encode(rows[-1].id) if has_more else None
    if cursor is not None:
        pages.link_next(response, "/v1/students", {"limit": limit, "after": cursor})
    data = [StudentSummary.model_validate(_columns(row)) for row in rows]
    return Page(data=data, has_more=has_more, next_cursor=cursor)


@routes.get("/students/{student_id}")
@needs(Scope.STUDENTS_READ)
@fails(GoneError)
def get_student(core: CoreDep, caller: CallerDep, student_id: str) -> StudentOut:
    """A student: its accuracy with an interval, against each baseline, and its files."""
    return describe(_student(core, caller, student_id))


def describe(student: Student) -> StudentOut:
    """A student in full."""
    return StudentOut.model_validate(
        {
            **_columns(student),
            "baselines": student.metrics.get("baselines", {}),
            "metrics": student.metrics,
            "files": _files(student),
            "archive_url": f"/v1/students/{student.id}/archive",
        }
    )


@routes.get("/students/{student_id}/files")
@needs(Scope.STUDENTS_READ)
@fails(GoneError)
def list_files(core: CoreDep, caller: CallerDep, student_id: str) -> Page[FileOut]:
    """A student's files, by name."""
    files = _files(_student(core, caller, student_id))
    return Page(data=files, has_more=False, next_cursor=None)


@routes.get(
    "/students/{student_id}/files/{name}",
    response_class=Response,
    responses=_bytes("*/*", elsewhere=True),
)
@needs(Scope.STUDENTS_READ)
@fails(DamagedFileError, GoneError, RangeNotSatisfiableError, *OF_STORAGE)
def get_file(
    request: Request, core: CoreDep, caller: CallerDep, student_id: str, name: str
) -> Response:
    """One file; `Range` for a part of it, `Repr-Digest` to check it."""
    file = service.file_of(_student(core, caller, student_id), name)
    service.check_stored(core.storage, file)
    return downloads.respond(
        request,
        Download(
            name=file.name,
            media_type=file.media_type,
            length=file.bytes,
            etag=f'"{file.sha256}"',
            read=partial(core.storage.read, file.key),
            sha256=file.sha256,
            elsewhere=partial(_signed, core, file) if core.settings.signed_downloads else None,
        ),
    )


@routes.get(
    "/students/{student_id}/archive", response_class=Response, responses=_bytes("application/zip")
)
@needs(Scope.STUDENTS_READ)
@fails(DamagedFileError, GoneError, RangeNotSatisfiableError, *OF_STORAGE)
def get_archive(request: Request, core: CoreDep, caller: CallerDep, student_id: str) -> Response:
    """All files as one zip archive, the same bytes every time."""
    student = _student(core, caller, student_id)
    whole = archive.archive_of(service.files_of(student), core.storage)
    return downloads.respond(
        request,
        Download(
            name=f"{student.id}.zip",
            media_type="application/zip",
            length=whole.length,
            etag=whole.etag,
            read=whole.read,
        ),
    )


def _signed(core: Core, file: StoredFile) -> str | None:
    return core.storage.signed(file.key, core.settings.signed_seconds)


def _student(core: CoreDep, caller: CallerDep, student_id: str) -> Student:
    with core.database.read() as session:
        return service.get(session, caller.owner, student_id)


def _columns(student: Student) -> dict[str, Any]:
    metrics = student.metrics
    return {
        "id": student.id,
        "job_id": student.job_id,
        "dataset_id": student.dataset_id,
        "dataset_version": student.dataset_version,
        "foundation": student.foundation,
        "architecture": student.architecture,
        "accuracy": metrics.get("accuracy"),
        "interval": metrics.get("interval"),
        "params": metrics.get("student", {}).get("params"),
        "partial": student.partial,
        "created_at": student.created_at,
    }


def _files(student: Student) -> list[FileOut]:
    return [
        FileOut(
            name=file.name,
            bytes=file.bytes,
            sha256=file.sha256,
            media_type=file.media_type,
            url=f"/v1/students/{student.id}/files/{file.name}",
        )
        for file in service.files_of(student)
    ]
