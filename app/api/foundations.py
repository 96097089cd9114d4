"""/v1/models: upload a foundation of your own, and see what its check found."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from sqlalchemy.orm import Session

from app.access import quotas
from app.access.limits import Cost
from app.access.scopes import Scope
from app.api import accepted, idempotency, uploads
from app.api.core import CallerDep, CoreDep
from app.api.datasets import check_of
from app.api.guard import fails, needs, router
from app.api.schemas import Printable
from app.errors import (
    OF_STORAGE,
    DiskFullError,
    EmptyBodyError,
    GoneError,
    IdempotencyKeyReusedError,
    NotSafetensorsError,
    QuotaExceededError,
    RequestTimeoutError,
    TooLargeError,
    UnknownModelError,
    UnsupportedMediaTypeError,
)
from app.foundations import safetensors, service
from app.foundations.service import Checked
from app.models import Job, Model
from app.plans import checks, findings
from tdmr import catalog
from tdmr.wire.models import OwnModelOut, OwnModelSummary

routes = router()

MEDIA_TYPES = ("application/octet-stream",)

Architecture = Annotated[
    str,
    Query(
        min_length=1,
        max_length=200,
        description="The timm model that the weights are of. With or without a tag, it tells size, "
        "mean and deviation.",
        examples=["vit_small_patch14_dinov2.lvd142m"],
    ),
]
Name = Annotated[
    str | None,
    Query(min_length=1, max_length=200, description="Yours; else the architecture."),
    Printable,
]
Licence = Annotated[
    str | None,
    Query(min_length=1, max_length=100, description="Of the weights; goes into model cards."),
    Printable,
]
_BODY = {
    "requestBody": {
        "required": True,
        "description": "A safetensors file, as safetensors.torch.save_file writes it. A classifier "
        "may be there or not: it isn't used.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES
        },
    }
}


@routes.post("/models", status_code=201, openapi_extra=_BODY)
@needs(Scope.MODELS_WRITE, Cost.UPLOAD)
@fails(
    DiskFullError,
    EmptyBodyError,
    GoneError,
    IdempotencyKeyReusedError,
    NotSafetensorsError,
    QuotaExceededError,
    RequestTimeoutError,
    TooLargeError,
    UnknownModelError,
    UnsupportedMediaTypeError,
    *OF_STORAGE,
)
async def create_model(
    request: Request,
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    architecture: Architecture,
    name: Name = None,
    licence: Licence = None,
    idempotency_key: idempotency.Key = None,
) -> OwnModelOut:
    """Upload weights of your own. They are checked next: ask until they are `ready` or `invalid`.

    Then an order can name the model's id as its `foundation`.
    """
    owner, settings = caller.owner, core.settings
    uploads.check_headers(request, settings.max_model_bytes, MEDIA_TYPES, safetensors.WHAT)
    _check_architecture(architecture)
    await accepted.check_room(request, core, owner, idempotency_key, quotas.admit_model)
    model_id, reader = service.new_model_id(), safetensors.Reader()
    upload = await uploads.store(
        request, core.storage, service.file_key(model_id), settings.max_model_bytes, reader
    )
    parts = (name or architecture, architecture, licence or "", upload.sha256)
    asked = idempotency.asked(idempotency_key, "POST /v1/models", *parts)

    def make(session: Session) -> Checked:
        quotas.admit_model(session, owner, upload.bytes, settings)
        return service.create(
            session,
            model_id=model_id,
            owner=owner,
            name=name or architecture,
            architecture=architecture,
            licence=licence,
            upload=upload,
            idempotency=asked,
            settings=settings,
        )

    def find(session: Session, job: Job) -> Checked:
        assert job.model_id is not None, "the key was another request's"
        return service.get(session, owner, job.model_id)

    checked = await accepted.note(response, core, owner, asked, upload, make, find)
    response.headers["Location"] = f"/v1/models/{checked.model.id}"
    return describe(checked)


@routes.get("/models/{model_id}")
@needs(Scope.MODELS_READ)
@fails(GoneError)
def get_model(core: CoreDep, caller: CallerDep, model_id: str) -> OwnModelOut:
    """A foundation of your own: what it is, and every finding of its check."""
    with core.database.read() as session:
        return describe(service.get(session, caller.owner, model_id))


def _check_architecture(architecture: str) -> None:
    """Raise UnknownModelError for one that can't be made. It needs no published weights."""
    found = checks.unknown_model(architecture, "student", "/query/architecture")
    if found is None:
        return
    detail = f"{architecture!r} isn't a timm architecture that offers taps, or lacks that tag."
    raise findings.refused(UnknownModelError, found, detail, found.advice)


def summarise(model: Model) -> OwnModelSummary:
    """A model as a line of a list."""
    return OwnModelSummary.model_validate(_columns(model))


def describe(checked: Checked) -> OwnModelOut:
    """A model in full."""
    return OwnModelOut.model_validate(
        {
            **_columns(checked.model),
            "findings": checked.model.findings,
            "check": None if checked.job is None else check_of(checked.job),
        }
    )


def _columns(model: Model) -> dict[str, object]:
    entry = catalog.find(model.architecture)
    assert entry is not None, "its architecture was known when it came"
    names = set(OwnModelSummary.model_fields) - {"family"}
    return {"family": entry.family, **{name: getattr(model, name) for name in names}}
