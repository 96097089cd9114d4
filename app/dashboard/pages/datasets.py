"""/datasets: what there is, and a place to drop more."""

from __future__ import annotations

from nicegui import ui

from app.access.scopes import Scope
from app.dashboard.frame import page
from app.dashboard.parts import Tag, ago, badge, link, row, show_badge, size, table, tag
from app.dashboard.visit import Visit
from tdmr.wire.base import Page
from tdmr.wire.datasets import DatasetSummary

SHOWN = 50
DROP = """
<p><strong>Drop an archive here</strong></p>
<p class="hint">A zip, tar or tar.gz with a folder of images for each class, a manifest beside
images, WebDataset samples, or a Parquet file. A broken connection loses nothing: the same file,
dropped again, goes on where it was.</p>
<label for="files">or choose files</label>
<input id="files" type="file" multiple>
<ul class="uploads"></ul>"""


@page("/datasets", "Datasets")
async def datasets(visit: Visit) -> None:
    """All datasets, and the drop zone."""

    async def look() -> list[DatasetSummary]:
        return (await visit.get(Page[DatasetSummary], "/v1/datasets", limit=SHOWN)).data

    if visit.may(Scope.DATASETS_WRITE):
        ui.html(DROP, sanitize=False).classes("drop").props('id="drop"')
    with tag("section", "card"):
        empty = tag("p", "hint", "No datasets yet.")
        body = table("Datasets", ["Name", "Status", "Upload", "Uploaded"])
    badges: dict[str, Tag] = {}

    def show(found: list[DatasetSummary]) -> None:
        empty.set_visibility(not found)
        if list(badges) != [each.id for each in found]:
            body.clear()
            badges.clear()
            with body:
                badges.update({each.id: _row(each) for each in found})
        for each in found:
            show_badge(badges[each.id], each.status)

    await visit.watch("datasets", look, show)


def _row(each: DatasetSummary) -> Tag:
    with row([]):
        with tag("td"):
            link(each.name, f"/datasets/{each.id}")
        with tag("td"):
            status = badge(each.status)
        tag("td", text=size(each.upload_bytes))
        tag("td", text=ago(each.created_at))
    return status
