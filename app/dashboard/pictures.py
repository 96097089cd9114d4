"""Thumbnails of a dataset's images, and where they are to be had."""

from __future__ import annotations

from collections.abc import Collection

from app.dashboard.inside import RefusedError
from app.dashboard.parts import tag
from app.dashboard.paths import within
from app.dashboard.visit import Visit
from tdmr.wire.base import Page
from tdmr.wire.datasets import ImageOut

LOOKED_THROUGH = 20  # pages of 100 images, for those that are wanted


def thumbnail(url: str, caption: str, source: str) -> None:
    """An image with what is to be said of it."""
    with tag("figure"):
        made = tag("img")
        made._props |= {"src": within(url), "alt": f"{caption}: {source}", "loading": "lazy"}
        made._props["title"] = source
        tag("figcaption", text=caption)


async def places(
    visit: Visit, dataset_id: str, wanted: Collection[str], split: str | None = None
) -> dict[str, str]:
    """The thumbnails of the images that came from the files `wanted`, as far as there are any.

    Looks through the first images of a split, or of all; gives none of a dataset that is gone.
    """
    found: dict[str, str] = {}
    cursor = None
    try:
        for _ in range(LOOKED_THROUGH):
            if len(found) == len(wanted):
                break
            path = f"/v1/datasets/{dataset_id}/images"
            images = await visit.get(Page[ImageOut], path, split=split, after=cursor, limit=100)
            found |= {e.source: e.thumbnail_url for e in images.data if e.source in wanted}
            cursor = images.next_cursor
            if not images.has_more:
                break
    except RefusedError:
        return {}
    return found
