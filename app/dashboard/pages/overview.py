"""/: what runs, what waits, who works, and what went wrong lately."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from starlette.concurrency import run_in_threadpool

from app import models
from app.access.scopes import Scope
from app.api.core import Core
from app.dashboard.frame import page
from app.dashboard.parts import (
    Box,
    Tag,
    ago,
    badge,
    link,
    meter,
    row,
    set_meter,
    show_badge,
    size,
    span,
    table,
    tag,
)
from app.dashboard.visit import Visit
from app.jobs import fleet
from tdmr.wire.base import Page
from tdmr.wire.jobs import JobOut

OPEN = ("running", "pausing", "packaging", "queued", "paused")
SHOWN = 10


@dataclass(frozen=True)
class Worker:
    """A worker, and how long ago it was heard of."""

    name: str
    device: str
    kinds: tuple[str, ...]
    seen_at: datetime


@dataclass(frozen=True)
class Seen:
    """Everything that the page shows."""

    open: dict[str, list[JobOut]]
    failed: list[JobOut]
    workers: list[Worker]
    free: int
    total: int


@page("/", "Overview")
async def overview(visit: Visit) -> None:
    """The state of the service, for this visitor."""

    async def look() -> Seen:
        if visit.may(Scope.JOBS_READ):
            found = await asyncio.gather(*(_jobs(visit, status) for status in (*OPEN, "failed")))
        else:
            found = [[] for _ in (*OPEN, "failed")]
        workers, (total, _, free) = await run_in_threadpool(_machines, visit.core)
        jobs = dict(zip((*OPEN, "failed"), found, strict=True))
        failed = jobs.pop("failed")
        return Seen(jobs, failed[:5], workers, free // 10**8 * 10**8, total)

    with tag("div", "tiles"):
        tiles = {name: _tile(name) for name in ("Running", "Waiting", "Workers", "Free disk")}
    with tag("section", "card"):
        tag("h2", text="Jobs under way")
        under_way = UnderWay()
    with tag("div", "grid"):
        with tag("section", "card"):
            tag("h2", text="Workers")
            workers = Box()
        with tag("section", "card"):
            tag("h2", text="Recent failures")
            failures = Box()

    def show(seen: Seen) -> None:
        jobs = [job for status in OPEN for job in seen.open[status]]
        waiting = len(seen.open["queued"])
        tiles["Running"].say(str(len(jobs) - waiting - len(seen.open["paused"])))
        tiles["Waiting"].say(str(waiting))
        tiles["Workers"].say(str(len(seen.workers)))
        tiles["Free disk"].say(size(seen.free))
        under_way.show(jobs)
        workers.show(seen.workers, partial(_show_workers, seen.workers))
        failures.show([job.id for job in seen.failed], partial(_show_failures, seen.failed))

    await visit.watch("overview", look, show)


class UnderWay:
    """A table of jobs whose rows are changed in place, so that nothing jumps or loses focus."""

    def __init__(self) -> None:
        self._empty = tag("p", "hint", "Nothing runs, and nothing waits.")
        self._table = table("Jobs under way", ["Job", "Status", "Stage", "Progress", "Left"])
        self._ids: list[str] = []
        self._cells: dict[str, tuple[Tag, Tag, Tag, Tag]] = {}

    def show(self, jobs: list[JobOut]) -> None:
        """Show these jobs."""
        self._empty.set_visibility(not jobs)
        if [job.id for job in jobs] != self._ids:
            self._ids = [job.id for job in jobs]
            self._table.clear()
            with self._table:
                self._cells = {job.id: self._row(job) for job in jobs}
        for job in jobs:
            status, stage, bar, left = self._cells[job.id]
            show_badge(status, job.status)
            stage.say(_where(job))
            set_meter(bar, job.stage.progress if job.stage else 0.0)
            left.say(span(job.eta_seconds) if job.status == "running" else "—")

    def _row(self, job: JobOut) -> tuple[Tag, Tag, Tag, Tag]:
        with row([]):
            with tag("td"):
                link(f"{job.student} from {job.foundation}", f"/jobs/{job.id}")
            with tag("td"):
                status = badge(job.status)
            stage = tag("td", text="")
            with tag("td"):
                bar = meter(f"Progress of {job.student}")
            return status, stage, bar, tag("td", "right", "—")


def _where(job: JobOut) -> str:
    if job.status == "queued":
        reason = (job.waiting_reason or "").replace("_", " ")
        return f"place {job.queue_position}, {reason}" if job.queue_position else reason
    return f"{job.stage.name} ({job.stage.index} of {job.stage.count})" if job.stage else "—"


async def _jobs(visit: Visit, status: str) -> list[JobOut]:
    found = await visit.get(Page[JobOut], "/v1/jobs", status=status, limit=SHOWN)
    return found.data


def _machines(core: Core) -> tuple[list[Worker], tuple[int, int, int]]:
    with core.database.read() as session:
        rows = fleet.present(session, core.settings.worker_patience)
    workers = [Worker(w.host, _device(w), tuple(w.kinds), w.seen_at) for w in rows]
    return workers, shutil.disk_usage(core.settings.data_dir)


def _device(worker: models.Worker) -> str:
    return worker.device if worker.devices == 1 else f"{worker.device} x {worker.devices}"


def _tile(name: str) -> Tag:
    with tag("div", "tile"):
        tag("span", "hint", name)
        return tag("b", text="—")


def _show_workers(workers: list[Worker]) -> None:
    if not workers:
        tag("p", "hint", "No worker has been heard of lately: start one with tdmr-worker.")
        return
    body = table("Workers", ["Host", "Device", "Takes", "Heard of"])
    with body:
        for worker in workers:
            heard = ago(worker.seen_at, datetime.now(UTC))
            row([worker.name, worker.device, ", ".join(worker.kinds), heard])


def _show_failures(failed: list[JobOut]) -> None:
    if not failed:
        tag("p", "hint", "Nothing has failed.")
        return
    body = table("Recent failures", ["Job", "Why", "When"])
    with body:
        for job in failed:
            with row([]):
                with tag("td"):
                    link(job.student, f"/jobs/{job.id}")
                tag("td", text=job.failure.code.replace("_", " ") if job.failure else "—")
                tag("td", text=ago(job.ended_at))
