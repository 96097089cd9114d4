"""/v1/uploads: tus 1.0.0. A finished upload is a dataset, as one sent to /v1/datasets."""

from __future__ import annotations

from email.utils import format_datetime
from typing import Annotated, Any

import anyio
from fastapi import Header, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.access import quotas
from app.access.keys import Caller
from app.access.limits import Cost
from app.access.scopes import Scope
from app.api import idempotency, tus
from app.api.appending import append
from app.api.body import content_length, media_type
from app.api.core import CallerDep, Core, CoreDep
from app.api.guard import fails, needs, router
from app.api.tus import Checksum
from app.datasets import resumable
from app.errors import (
    OF_STORAGE,
    ChecksumMismatchError,
    ConflictError,
    DiskFullError,
    EmptyBodyError,
    GoneError,
    IdempotencyKeyReusedError,
    LockedError,
    NotAnArchiveError,
    OffsetMismatchError,
    QuotaExceededError,
    RequestTimeoutError,
    TooLargeError,
    TooManyUploadsError,
    TusVersionError,
    UnsupportedMediaTypeError,
)
from app.jobs.idempotency import Idempotency, earlier_upload
from app.models import Upload
from tdmr.wire.datasets import UploadOut

routes = router()

DATASET = "Tdmr-Dataset"
_STATE = {
    "Upload-Offset": "Bytes that are durable: send on from here.",
    "Upload-Expires": "When it's removed, unless more comes; absent once it's finished.",
    DATASET: "Where the dataset is that it became; absent until it's finished.",
}

_NEEDED: dict[str, Any] = {"x-required": True}
_NUMBER: dict[str, Any] = {**_NEEDED, "pattern": "^[0-9]{1,15}$"}
Version = Annotated[
    str | None,
    Header(alias="Tus-Resumable", json_schema_extra={**_NEEDED, "enum": [tus.VERSION]}),
]
VersionOfHead = Annotated[
    str | None, Header(alias="Tus-Resumable", description="Needed for HEAD, which tus asks with.")
]
Length = Annotated[
    str | None,
    Header(alias="Upload-Length", description="Of the whole.", json_schema_extra=_NUMBER),
]
Offset = Annotated[
    str | None,
    Header(alias="Upload-Offset", description="Where it goes on.", json_schema_extra=_NUMBER),
]
Metadata = Annotated[
    str | None,
    Header(
        alias="Upload-Metadata",
        description="Pairs of a key and base64: `name` or `filename` of the dataset, `filetype`.",
        json_schema_extra={"format": "tus-metadata"},
    ),
]
ChecksumText = Annotated[
    str | None,
    Header(
        alias="Upload-Checksum",
        description="`sha256` or `sha1` and the base64 of the body's digest; else 460.",
        json_schema_extra={"format": "tus-checksum"},
    ),
]


def _body(required: bool) -> dict[str, Any]:
    schema = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": required, "content": {tus.MEDIA_TYPE: schema}}}


def _told(description: str, **more: str) -> dict[str, Any]:
    """An answer with its headers, for the API's description."""
    names = {**{name.replace("_", "-"): text for name, text in more.items()}, **_STATE}
    return {
        "description": description,
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in names.items()
        },
    }


@routes.api_route("/uploads", methods=["OPTIONS"], status_code=204, response_class=Response)
@needs(Scope.DATASETS_WRITE)
@fails(TusVersionError)
def upload_options(core: CoreDep) -> Response:
    """What of tus there is: version, extensions, checksum algorithms, the largest size."""
    return Response(
        status_code=204,
        headers={
            "Tus-Version": tus.VERSION,
            "Tus-Extension": tus.EXTENSIONS,
            "Tus-Max-Size": str(core.settings.max_upload_bytes),
            "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
        },
    )


@routes.post(
    "/uploads",
    status_code=201,
    response_model=UploadOut,
    openapi_extra=_body(required=False),
    responses={201: _told("The upload.", Location="Where to send its bytes.")},
)
@needs(Scope.DATASETS_WRITE, Cost.UPLOAD)
@fails(
    ChecksumMismatchError,
    DiskFullError,
    EmptyBodyError,
    GoneError,
    IdempotencyKeyReusedError,
    NotAnArchiveError,
    QuotaExceededError,
    RequestTimeoutError,
    TooLargeError,
    TooManyUploadsError,
    TusVersionError,
    UnsupportedMediaTypeError,
    *OF_STORAGE,
)
async def create_upload(
    request: Request,
    core: CoreDep,
    caller: CallerDep,
    _version: Version = None,
    _length: Length = None,
    _metadata: Metadata = None,
    _checksum: ChecksumText = None,
    idempotency_key: idempotency.Key = None,
) -> Response:
    """Begin an upload that can be broken off and gone on with; its first bytes may come along.

    A repeat gets the same upload as it is now; bytes that come along with it are dropped.
    """
    tus.check_version(request)
    length = tus.length(request)
    if length == 0:
        raise EmptyBodyError("An upload of no bytes can't become a dataset.")
    if length > core.settings.max_upload_bytes:
        raise TooLargeError(f"An upload may have at most {core.settings.max_upload_bytes} bytes.")
    raw, known = tus.metadata(request)
    name = tus.dataset_name(known)
    checksum = tus.checksum(request)
    comes_along = media_type(request) == tus.MEDIA_TYPE
    if not comes_along and content_length(request):
        raise _wrong_type()
    asked = idempotency.asked(idempotency_key, f"POST {tus.PATH}", str(length), raw or "")
    upload, replayed = await run_in_threadpool(_begin, core, caller, asked, length, name, raw)
    if replayed:
        async for _ in request.stream():  # what has arrived is told; the rest goes to its address
            pass
    elif comes_along:
        upload = await _take_along(request, core, upload, checksum)
    response = _answer(upload, 201)
    response.headers["Location"] = f"{tus.PATH}/{upload.id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _begin(
    core: Core,
    caller: Caller,
    asked: Idempotency,
    length: int,
    name: str,
    metadata: str | None,
) -> tuple[Upload, bool]:
    """The part first, so that a row never speaks of one that isn't there; True for a repeat."""
    upload_id = resumable.new_upload_id()
    key = resumable.part_key(upload_id)

    def make(session: Session) -> Upload:
        quotas.admit_bytes(session, caller.owner, length, core.settings)
        return resumable.create(
            session,
            upload_id=upload_id,
            owner=caller.owner,
            name=name,
            length=length,
            metadata=metadata,
            idempotency=asked,
            settings=core.settings,
        )

    def find(session: Session, upload: Upload) -> Upload:
        return resumable.get(session, caller.owner, upload.id)

    core.storage.begin(key)
    kept = False
    try:
        upload, replayed = idempotency.once(core, caller.owner, asked, make, find, earlier_upload)
        kept = not replayed
    finally:
        if not kept:  # no part without a row
            core.storage.delete(key)
    return upload, replayed


async def _take_along(
    request: Request, core: Core, upload: Upload, checksum: Checksum | None
) -> Upload:
    """Append the bytes that came with the beginning. If they can't be taken, nothing was begun.

    With a key something was: by it the caller, or whoever goes on meanwhile, knows the address.
    """
    try:
        return await append(request, core, upload.owner, upload.id, 0, checksum)
    except BaseException:  # whatever it was, the caller hasn't got the address
        if upload.idempotency_key is None:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(resumable.remove, core.database, core.storage, upload.id)
        raise


@routes.get(
    "/uploads/{upload_id}",
    response_model=UploadOut,
    responses={200: _told("The upload.", Upload_Length="Of the whole, in bytes.")},
)
@needs(Scope.DATASETS_WRITE)
@fails(GoneError, LockedError, TusVersionError)
def get_upload(
    request: Request,
    core: CoreDep,
    caller: CallerDep,
    upload_id: str,
    _version: VersionOfHead = None,
) -> Response:
    """How far an upload is; HEAD says so in headers alone, as tus has it."""
    if request.state.head:
        tus.check_version(request)
    with core.database.read() as session:
        return _answer(resumable.get(session, caller.owner, upload_id), 200)


@routes.patch(
    "/uploads/{upload_id}",
    status_code=204,
    response_class=Response,
    openapi_extra=_body(required=True),
    responses={204: _told("The bytes are durable.")},
)
@needs(Scope.DATASETS_WRITE, Cost.UPLOAD)
@fails(
    ChecksumMismatchError,
    DiskFullError,
    GoneError,
    LockedError,
    NotAnArchiveError,
    OffsetMismatchError,
    QuotaExceededError,
    RequestTimeoutError,
    TooLargeError,
    TusVersionError,
    UnsupportedMediaTypeError,
    *OF_STORAGE,
)
async def append_to_upload(
    request: Request,
    core: CoreDep,
    caller: CallerDep,
    upload_id: str,
    _version: Version = None,
    _offset: Offset = None,
    _checksum: ChecksumText = None,
) -> Response:
    """Send more. What arrives before a connection breaks is kept; the last byte makes a dataset."""
    tus.check_version(request)
    if media_type(request) != tus.MEDIA_TYPE:
        raise _wrong_type()
    offset, checksum = tus.offset(request), tus.checksum(request)
    upload = await append(request, core, caller.owner, upload_id, offset, checksum)
    return Response(status_code=204, headers=_headers(upload))


@routes.delete("/uploads/{upload_id}", status_code=204, response_class=Response)
@needs(Scope.DATASETS_WRITE)
@fails(ConflictError, GoneError, LockedError, TusVersionError)
def delete_upload(
    request: Request, core: CoreDep, caller: CallerDep, upload_id: str, _version: Version = None
) -> Response:
    """Forget an upload and its bytes. The dataset that it became stays."""
    tus.check_version(request)
    with core.database.read() as session:
        upload = resumable.get(session, caller.owner, upload_id)
    resumable.remove(core.database, core.storage, upload.id)
    return Response(status_code=204)


def _answer(upload: Upload, status: int) -> Response:
    out = UploadOut(
        id=upload.id,
        name=upload.name,
        offset=upload.received_bytes,
        length=upload.length_bytes,
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        dataset_id=upload.dataset_id,
    )
    return JSONResponse(out.model_dump(mode="json"), status, headers=_headers(upload))


def _headers(upload: Upload) -> dict[str, str]:
    headers = {
        "Upload-Offset": str(upload.received_bytes),
        "Upload-Length": str(upload.length_bytes),
        "Cache-Control": "no-store",
    }
    if upload.user_metadata is not None:
        headers["Upload-Metadata"] = upload.user_metadata
    if upload.expires_at is not None:
        headers["Upload-Expires"] = format_datetime(upload.expires_at, usegmt=True)
    if upload.dataset_id is not None:
        headers[DATASET] = f"/v1/datasets/{upload.dataset_id}"
    return headers


def _wrong_type() -> UnsupportedMediaTypeError:
    return UnsupportedMediaTypeError(f"Send the bytes with Content-Type: {tus.MEDIA_TYPE}.")
