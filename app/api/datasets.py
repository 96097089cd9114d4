"""/v1/datasets: upload one, and see what its check found."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from sqlalchemy.orm import Session

from app.access import quotas
from app.access.limits import Cost
from app.access.scopes import Scope
from app.api import accepted, idempotency, pages, uploads
from app.api.core import CallerDep, CoreDep
from app.api.guard import fails, needs, router
from app.api.pages import After, Limit
from app.api.schemas import Printable
from app.datasets import formats, service
from app.datasets.service import Checked
from app.errors import (
    OF_STORAGE,
    DiskFullError,
    EmptyBodyError,
    GoneError,
    IdempotencyKeyReusedError,
    NotAnArchiveError,
    QuotaExceededError,
    RequestTimeoutError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
from app.models import Dataset, Job, Json
from tdmr.wire.base import Page
from tdmr.wire.datasets import CheckOut, ClassOut, DatasetOut, DatasetSummary, ReportOut

routes = router()

_KINDS = formats.MEDIA_TYPES

Name = Annotated[str, Query(min_length=1, max_length=200, description="Yours."), Printable]
_BODY = {
    "requestBody": {
        "required": True,
        "description": "A zip, tar or tar.gz archive: one folder of images for each class, with "
        "or without train, val and test above them; or images and a CSV or JSONL file with the "
        "columns file, label and, if you like, split; or WebDataset samples. Or a Parquet file "
        "with image bytes and labels. The bytes decide which of them it is.",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _KINDS},
    }
}


@routes.post("/datasets", status_code=201, openapi_extra=_BODY)
@needs(Scope.DATASETS_WRITE, Cost.UPLOAD)
@fails(
    DiskFullError,
    EmptyBodyError,
    GoneError,
    IdempotencyKeyReusedError,
    NotAnArchiveError,
    QuotaExceededError,
    RequestTimeoutError,
    TooLargeError,
    UnsupportedMediaTypeError,
    *OF_STORAGE,
)
async def create_dataset(
    request: Request,
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    name: Name = "dataset",
    idempotency_key: idempotency.Key = None,
) -> DatasetOut:
    """Upload an archive. It is checked next: ask again until `status` is `ready` or `invalid`."""
    uploads.check_headers(request, core.settings.max_upload_bytes)
    owner, settings = caller.owner, core.settings
    await accepted.check_room(request, core, owner, idempotency_key, quotas.admit_bytes)
    dataset_id = service.new_dataset_id()
    key = service.upload_key(dataset_id)
    upload = await uploads.store(request, core.storage, key, settings.max_upload_bytes)
    asked = idempotency.asked(idempotency_key, "POST /v1/datasets", name, upload.sha256)

    def make(session: Session) -> Checked:
        quotas.admit_bytes(session, owner, upload.bytes, settings)
        return service.create(
            session,
            dataset_id=dataset_id,
            owner=owner,
            name=name,
            upload=upload,
            idempotency=asked,
            settings=settings,
        )

    def find(session: Session, job: Job) -> Checked:
        assert job.dataset_id is not None, "the key was another request's"
        return service.get(session, owner, job.dataset_id)

    checked = await accepted.note(response, core, owner, asked, upload, make, find)
    response.headers["Location"] = f"/v1/datasets/{checked.dataset.id}"
    return describe(checked)


@routes.get("/datasets")
@needs(Scope.DATASETS_READ)
def list_datasets(
    response: Response, core: CoreDep, caller: CallerDep, limit: Limit = 20, after: After = None
) -> Page[DatasetSummary]:
    """Your datasets, the newest first."""
    with core.database.read() as session:
        found = service.newest(session, caller.owner, pages.after_id(after), limit + 1)
    rows, has_more = pages.cut(found, limit)
    cursor = pages.encode(rows[-1].id) if has_more else None
    if cursor is not None:
        pages.link_next(response, "/v1/datasets", {"limit": limit, "after": cursor})
    return Page(data=[summarise(row) for row in rows], has_more=has_more, next_cursor=cursor)


@routes.get("/datasets/{dataset_id}")
@needs(Scope.DATASETS_READ)
@fails(GoneError)
def get_dataset(core: CoreDep, caller: CallerDep, dataset_id: str) -> DatasetOut:
    """A dataset: its classes, its splits, and every finding of its check."""
    with core.database.read() as session:
        return describe(service.get(session, caller.owner, dataset_id))


@routes.get("/datasets/{dataset_id}/report")
@needs(Scope.DATASETS_READ)
@fails(GoneError)
def get_report(core: CoreDep, caller: CallerDep, dataset_id: str) -> ReportOut:
    """Every finding of a dataset's check: what it is, where, how bad, and what to do."""
    with core.database.read() as session:
        dataset = service.get(session, caller.owner, dataset_id).dataset
    return ReportOut.model_validate(
        {
            "dataset_id": dataset.id,
            "status": dataset.status,
            "findings": dataset.findings,
            "audit": None if dataset.audit is None else _audit(dataset.id, dataset.audit),
        }
    )


def _audit(dataset_id: str, audit: Json) -> Json:
    """An audit with its images where they can be looked at."""

    def shown(image: Json) -> Json:
        return {**image, "thumbnail_url": f"/v1/datasets/{dataset_id}/images/{image['number']}"}

    def pairs(found: list[Json]) -> list[Json]:
        return [{**pair, "images": [shown(image) for image in pair["images"]]} for pair in found]

    return {
        **audit,
        "duplicates": pairs(audit["duplicates"]),
        "leaks": pairs(audit["leaks"]),
        "mislabels": [{**each, "image": shown(each["image"])} for each in audit["mislabels"]],
    }


def summarise(dataset: Dataset) -> DatasetSummary:
    """A dataset as a line of a list."""
    return DatasetSummary.model_validate(_columns(dataset))


def describe(checked: Checked) -> DatasetOut:
    """A dataset in full."""
    dataset = checked.dataset
    return DatasetOut.model_validate(
        {
            **_columns(dataset),
            "classes": _classes(dataset),
            "splits": dataset.splits,
            "findings": dataset.findings,
            "check": None if checked.job is None else check_of(checked.job),
        }
    )


def _columns(dataset: Dataset) -> dict[str, object]:
    return {name: getattr(dataset, name) for name in DatasetSummary.model_fields}


def _classes(dataset: Dataset) -> list[ClassOut] | None:
    if dataset.classes is None:
        return None
    splits = (dataset.splits or {}).values()
    return [
        ClassOut(name=name, images=sum(split.get(name, 0) for split in splits))
        for name in dataset.classes
    ]


def check_of(job: Job) -> CheckOut:
    """How far a check is."""
    progress = job.progress or {}
    return CheckOut.model_validate(
        {
            "status": job.state,
            "stage": progress.get("stage"),
            "eta_seconds": progress.get("eta_seconds"),
            "attempt": job.attempt,
        }
    )
