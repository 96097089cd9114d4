"""/datasets/{id}: what a dataset holds, and everything that was found about it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from nicegui import ui

from app.access.scopes import Scope
from app.dashboard.charts import bars
from app.dashboard.forms import enable, select, sure
from app.dashboard.frame import page
from app.dashboard.parts import (
    badge,
    button,
    facts,
    link,
    meter,
    percent,
    row,
    set_meter,
    show_badge,
    size,
    span,
    table,
    tag,
)
from app.dashboard.pictures import places, thumbnail
from app.dashboard.visit import Visit
from tdmr.wire.base import Page
from tdmr.wire.datasets import AuditOut, DatasetOut, ImageOut, NearDuplicate, ReportOut

SHOWN = 24  # thumbnails at once
MOST_CLASSES = 60  # in the histogram
MOST_PAIRS = 12
MOST_FINDINGS = 200


@page("/datasets/{dataset_id}", "Dataset")
async def dataset_page(visit: Visit, dataset_id: str) -> None:
    """One dataset; while it's checked, how far the check is."""
    path = f"/v1/datasets/{dataset_id}"

    async def look() -> DatasetOut:
        return await visit.get(DatasetOut, path)

    first = await look()
    with tag("section", "card"):
        with tag("div", "actions"):
            mark = badge(first.status)
            tag("strong", text=first.name)
            go = tag("span")
        bar = meter("Progress of the check")
        shown = facts([(name, "—") for name in ("Classes", "Images", "Upload", "Check", "Version")])
    rest = tag("div")
    drawn: list[str] = []

    def show(found: DatasetOut) -> None:
        show_badge(mark, found.status)
        for name, value in _told(found).items():
            shown[name].say(value)
        stage = found.check.stage if found.check else None
        under_way = stage.progress if stage else 0.0
        set_meter(bar, 1.0 if found.status != "processing" else under_way)
        if found.status != "processing" and found.status not in drawn:
            drawn.append(found.status)
            if found.status == "ready":
                with go:
                    link("New job with it", f"/new?dataset={found.id}", "button")
            ui.timer(0, partial(_rest, visit, found, rest), once=True)

    await visit.watch(("dataset", dataset_id), look, show)


def _told(found: DatasetOut) -> dict[str, str]:
    stage = found.check.stage if found.check else None
    left = found.check.eta_seconds if found.check else None
    check = "done" if found.status != "processing" else f"{stage.name if stage else 'waiting'}"
    return {
        "Classes": str(len(found.classes)) if found.classes is not None else "—",
        "Images": f"{sum(each.images for each in found.classes):,}" if found.classes else "—",
        "Upload": size(found.upload_bytes),
        "Check": f"{check}, {span(left)} left" if left else check,
        "Version": (found.version or "—")[:12],
    }


async def _findings(visit: Visit, found: DatasetOut) -> None:
    """What the check has to say, beside the images that it speaks of."""
    shown = found.findings[:MOST_FINDINGS]
    files = {each.file for each in shown if each.file is not None}
    pictures = await places(visit, found.id, files) if found.status == "ready" else {}
    with tag("section", "card"):
        tag("h2", text="What the check found")
        if not shown:
            tag("p", "hint", "Nothing to complain of.")
            return
        with table("Findings", ["", "File", "What", "What to do", "Image"]):
            for each in shown:
                file = each.file or "—"
                with row([each.severity, file, each.detail, each.advice]), tag("td", "seen"):
                    if file in pictures:
                        thumbnail(pictures[file], "", file)
        more = len(found.findings) - len(shown)
        if more:
            tag("p", "hint", f"And {more} more: see its report in the API.")


async def _rest(visit: Visit, found: DatasetOut, box: Any) -> None:
    """What is only to be had of a dataset that is settled."""
    report = await visit.get(ReportOut, f"/v1/datasets/{found.id}/report")
    with box:
        await _findings(visit, found)
        if found.status == "ready" and found.splits:
            _histogram(found)
            await Wall(visit, found).show()
        if report.audit is not None:
            _audit(report.audit)
        if visit.may(Scope.DATASETS_WRITE):
            with tag("div", "actions"):
                button("Delete the dataset", partial(_delete, visit, found.id), "danger")


def _histogram(found: DatasetOut) -> None:
    names = [each.name for each in found.classes or []][:MOST_CLASSES]
    columns = {
        split: [counts.get(name, 0) for name in names]
        for split, counts in (found.splits or {}).items()
    }
    with tag("section", "card"):
        tag("h2", text="Images by class and split")
        bars("Images by class and split", names, columns)


class Wall:
    """Thumbnails by class and split, a page at a time."""

    def __init__(self, visit: Visit, found: DatasetOut) -> None:
        self._visit, self._id = visit, found.id
        self._cursors: list[str | None] = [None]
        self._only: dict[str, str | None] = {"split": None, "label": None}
        with tag("section", "card"):
            tag("h2", text="Images")
            with tag("div", "actions"):
                self._choice("split", "All splits", found.splits or {})
                self._choice("label", "All classes", [c.name for c in found.classes or []])
                self._back = button("Earlier", partial(self._turn, -1), "plain")
                self._on = button("Later", partial(self._turn, 1), "plain")
            self._box = tag("div", "wall")

    def _choice(self, name: str, everything: str, values: Iterable[str]) -> None:
        def chosen(value: str) -> Any:
            self._only[name] = value or None
            self._cursors = [None]
            return self.show()

        made = select({"": everything} | {each: each for each in values}, "", chosen)
        made.props(f'aria-label="{everything}"').style("width:auto")

    async def show(self) -> None:
        """Show the page that the last cursor begins."""
        found = await self._visit.get(
            Page[ImageOut],
            f"/v1/datasets/{self._id}/images",
            **self._only,
            after=self._cursors[-1],
            limit=SHOWN,
        )
        self._next = found.next_cursor if found.has_more else None
        enable(self._back, len(self._cursors) > 1)
        enable(self._on, self._next is not None)
        self._box.clear()
        with self._box:
            for each in found.data:
                thumbnail(each.thumbnail_url, f"{each.label}, {each.split}", each.source)

    async def _turn(self, way: int) -> None:
        if way > 0 and self._next is not None:
            self._cursors.append(self._next)
        elif way < 0 and len(self._cursors) > 1:
            self._cursors.pop()
        await self.show()


def _audit(audit: AuditOut) -> None:
    with tag("section", "card"):
        tag("h2", text="What the foundation sees")
        tag("p", "hint", f"By {audit.foundation}; worth a look, and not always right.")
        leaks, duplicates = audit.counts["leaks"], audit.counts["duplicates"]
        _pairs(f"Leaks between training and held-out images: {leaks}", audit.leaks)
        _pairs(f"Near-duplicates: {duplicates}", audit.duplicates)
        tag("h3", text=f"Likely mislabels: {audit.counts['mislabels']}")
        with tag("div", "wall"):
            for each in audit.mislabels[:SHOWN]:
                said = f"{each.label}? rather {each.suggested} ({percent(each.score)})"
                thumbnail(each.image.thumbnail_url, said, each.image.file)


def _pairs(title: str, pairs: list[NearDuplicate]) -> None:
    """Images that show the same, side by side."""
    tag("h3", text=title)
    for pair in pairs[:MOST_PAIRS]:
        with tag("div", "pair"):
            for image in pair.images:
                thumbnail(image.thumbnail_url, image.file, image.file)
            tag("span", text=f"{percent(pair.similarity)} alike")


async def _delete(visit: Visit, dataset_id: str) -> None:
    if await sure(f"Delete the dataset? {visit.undo}", "Delete"):
        done = await visit.attempt("DELETE", f"/v1/datasets/{dataset_id}", "Deleted.")
        if done is not None:
            ui.navigate.to("/datasets")
