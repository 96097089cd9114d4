"""/v1/datasets/{id}/images: what a dataset holds, to look at."""

from __future__ import annotations

from typing import Annotated, Any

import structlog
from fastapi import Path, Query, Response

from app.access.scopes import Scope
from app.api import pages
from app.api.core import CallerDep, Core, CoreDep
from app.api.guard import fails, needs, router
from app.api.pages import AfterNumber, Limit
from app.api.schemas import Printable
from app.datasets import gallery, service
from app.datasets.gallery import Gallery, Row
from app.errors import OF_STORAGE, ConflictError, DamagedFileError, GoneError, NotFoundError
from app.models import Dataset
from tdmr.data.index import Split
from tdmr.wire.base import Page
from tdmr.wire.datasets import ImageOut

routes = router()
log = structlog.get_logger(__name__)

Label = Annotated[str | None, Query(max_length=255, description="Of this class."), Printable]
OfSplit = Annotated[Split | None, Query(description="Of this split.")]
Number = Annotated[int, Path(ge=0, le=10**12)]
_JPEG: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A JPEG of at most 128 pixels on its longer side.",
        "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
    },
    304: {"description": "The client's copy is still good."},
}
FOR_EVER = "private, max-age=31536000, immutable"  # a dataset's version never changes


@routes.get("/datasets/{dataset_id}/images")
@needs(Scope.DATASETS_READ)
@fails(ConflictError, DamagedFileError, GoneError, *OF_STORAGE)
def list_images(
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    dataset_id: str,
    split: OfSplit = None,
    label: Label = None,
    limit: Limit = 20,
    after: AfterNumber = None,
) -> Page[ImageOut]:
    """A ready dataset's images by split, class and name in the upload, with thumbnails."""
    dataset = _ready(core, caller.owner, dataset_id)
    runs = gallery.runs(dataset.splits or {}, split, label)
    found = gallery.page(_opened(core, dataset), runs, pages.after_number(after), limit + 1)
    rows, has_more = pages.cut(found, limit)
    cursor = pages.encode(str(rows[-1].number + 1)) if has_more else None
    if cursor is not None:
        query = {"split": split, "label": label, "limit": limit, "after": cursor}
        pages.link_next(response, f"/v1/datasets/{dataset_id}/images", query)
    data = [_described(dataset_id, row) for row in rows]
    return Page(data=data, has_more=has_more, next_cursor=cursor)


@routes.get("/datasets/{dataset_id}/images/{number}", response_class=Response, responses=_JPEG)
@needs(Scope.DATASETS_READ)
@fails(ConflictError, DamagedFileError, GoneError, *OF_STORAGE)
def get_thumbnail(core: CoreDep, caller: CallerDep, dataset_id: str, number: Number) -> Response:
    """The thumbnail of one image."""
    data = _opened(core, _ready(core, caller.owner, dataset_id)).thumbnail(number)
    if data is None:
        raise NotFoundError("The dataset has no image of that number.")
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": FOR_EVER})


def _ready(core: Core, owner: str, dataset_id: str) -> Dataset:
    with core.database.read() as session:
        dataset = service.get(session, owner, dataset_id).dataset
    if dataset.status != "ready":
        raise ConflictError(f"The dataset is {dataset.status}: there are no images to show.")
    return dataset


def _opened(core: Core, dataset: Dataset) -> Gallery:
    if dataset.gallery_key is None:
        raise ConflictError(
            "The dataset was checked before there were thumbnails. Upload it again."
        )
    key = dataset.gallery_key
    size = core.storage.size(key)
    if size is None:
        log.error("damaged_file", key=key)
        raise DamagedFileError("The dataset's thumbnails are gone. Upload it again.")
    return Gallery(size, lambda start, stop: b"".join(core.storage.read(key, start, stop)))


def _described(dataset_id: str, row: Row) -> ImageOut:
    url = f"/v1/datasets/{dataset_id}/images/{row.number}"
    return ImageOut.model_validate({**vars(row), "thumbnail_url": url})
