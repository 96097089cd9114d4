"""DELETE and restore: of datasets, models, students and jobs.

A second DELETE is a 204 like the first. What is deleted answers 410 to its owner, for good, and is
in no list.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from app.access.scopes import Scope
from app.api import datasets, foundations, jobs, students
from app.api.core import CallerDep, CoreDep
from app.api.guard import fails, needs, router
from app.datasets import service as dataset_service
from app.errors import ConflictError, DatasetInUseError, GoneError, ModelInUseError
from app.foundations import service as foundation_service
from app.jobs import service as job_service
from app.students import service as student_service
from tdmr.wire.datasets import DatasetOut
from tdmr.wire.jobs import JobOut
from tdmr.wire.models import OwnModelOut
from tdmr.wire.students import StudentOut

routes = router()

Permanently = Annotated[bool, Query(description="Without the time in which it can be restored.")]


@routes.delete("/datasets/{dataset_id}", status_code=204, response_class=Response)
@needs(Scope.DATASETS_WRITE)
@fails(ConflictError, DatasetInUseError, GoneError)
def delete_dataset(
    core: CoreDep, caller: CallerDep, dataset_id: str, permanently: Permanently = False
) -> Response:
    """Delete a dataset that no job needs any more. Students made from it stay."""
    with core.database.write() as session:
        dataset_service.delete(
            session, caller.owner, dataset_id, core.settings, permanently=permanently
        )
    return Response(status_code=204)


@routes.post("/datasets/{dataset_id}/restore", status_code=202)
@needs(Scope.DATASETS_WRITE)
@fails(ConflictError, GoneError)
def restore_dataset(core: CoreDep, caller: CallerDep, dataset_id: str) -> DatasetOut:
    """Bring a deleted dataset back, while it can be."""
    with core.database.write() as session:
        return datasets.describe(dataset_service.restore(session, caller.owner, dataset_id))


@routes.delete("/models/{model_id}", status_code=204, response_class=Response)
@needs(Scope.MODELS_WRITE)
@fails(ConflictError, GoneError, ModelInUseError)
def delete_model(
    core: CoreDep, caller: CallerDep, model_id: str, permanently: Permanently = False
) -> Response:
    """Delete a foundation of your own that no job needs any more. Its students stay."""
    with core.database.write() as session:
        foundation_service.delete(
            session, caller.owner, model_id, core.settings, permanently=permanently
        )
    return Response(status_code=204)


@routes.post("/models/{model_id}/restore", status_code=202)
@needs(Scope.MODELS_WRITE)
@fails(ConflictError, GoneError)
def restore_model(core: CoreDep, caller: CallerDep, model_id: str) -> OwnModelOut:
    """Bring a deleted model back, while it can be."""
    with core.database.write() as session:
        return foundations.describe(foundation_service.restore(session, caller.owner, model_id))


@routes.delete("/students/{student_id}", status_code=204, response_class=Response)
@needs(Scope.STUDENTS_WRITE)
@fails(ConflictError, GoneError)
def delete_student(
    core: CoreDep, caller: CallerDep, student_id: str, permanently: Permanently = False
) -> Response:
    """Delete a student and its files. The job that made it stays."""
    with core.database.write() as session:
        student_service.delete(
            session, caller.owner, student_id, core.settings, permanently=permanently
        )
    return Response(status_code=204)


@routes.post("/students/{student_id}/restore", status_code=202)
@needs(Scope.STUDENTS_WRITE)
@fails(ConflictError, GoneError)
def restore_student(core: CoreDep, caller: CallerDep, student_id: str) -> StudentOut:
    """Bring a deleted student back, while it can be."""
    with core.database.write() as session:
        return students.describe(student_service.restore(session, caller.owner, student_id))


@routes.delete("/jobs/{job_id}", status_code=204, response_class=Response)
@needs(Scope.JOBS_WRITE)
@fails(ConflictError, GoneError)
def delete_job(
    core: CoreDep, caller: CallerDep, job_id: str, permanently: Permanently = False
) -> Response:
    """Delete a job that has ended, with its log and its checkpoint. Its student stays."""
    with core.database.write() as session:
        job_service.delete(session, caller.owner, job_id, core.settings, permanently=permanently)
    return Response(status_code=204)


@routes.post("/jobs/{job_id}/restore", status_code=202)
@needs(Scope.JOBS_WRITE)
@fails(ConflictError, GoneError)
def restore_job(core: CoreDep, caller: CallerDep, job_id: str) -> JobOut:
    """Bring a deleted job back, while it can be."""
    with core.database.write() as session:
        return jobs.describe(job_service.restore(session, caller.owner, job_id, core.settings))
