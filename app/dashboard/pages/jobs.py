"""/jobs: all jobs and sweeps, the newest first."""

from __future__ import annotations

from app.dashboard.frame import page
from app.dashboard.parts import Tag, ago, badge, link, row, show_badge, span, table, tag
from app.dashboard.visit import Visit
from tdmr.wire.base import Page
from tdmr.wire.jobs import JobOut
from tdmr.wire.sweeps import SweepSummary

SHOWN = 50


@page("/jobs", "Jobs")
async def jobs(visit: Visit) -> None:
    """Jobs with their status; rows are changed in place."""

    async def look() -> list[JobOut]:
        return (await visit.get(Page[JobOut], "/v1/jobs", limit=SHOWN)).data

    with tag("section", "card"):
        empty = tag("p", "hint", "No jobs yet.")
        body = table("Jobs", ["Job", "Status", "Stage", "Work so far", "Ordered", "Student"])
    cells: dict[str, tuple[Tag, Tag, Tag, Tag]] = {}

    def show(found: list[JobOut]) -> None:
        empty.set_visibility(not found)
        if list(cells) != [job.id for job in found]:
            body.clear()
            cells.clear()
            with body:
                cells.update({job.id: _row(job) for job in found})
        for job in found:
            status, stage, spent, student = cells[job.id]
            show_badge(status, job.status)
            stage.say(f"{job.stage.name} {100 * job.stage.progress:.0f} %" if job.stage else "—")
            spent.say(span(job.spent_seconds))
            if job.student_id and not list(student):
                with student:
                    link("partial" if job.partial else "open", f"/students/{job.student_id}")

    await visit.watch("jobs", look, show)
    sweeps = (await visit.get(Page[SweepSummary], "/v1/sweeps", limit=SHOWN)).data
    if sweeps:
        _sweeps(sweeps)


def _sweeps(found: list[SweepSummary]) -> None:
    with tag("section", "card"):
        tag("h2", text="Sweeps")
        with table("Sweeps", ["Sweep", "Status", "Ordered"]):
            for each in found:
                with row([]):
                    with tag("td"):
                        said = f"{len(each.students)} students from {each.foundation}"
                        link(each.name or said, f"/sweeps/{each.id}")
                    tag("td", text=each.status)
                    tag("td", text=ago(each.created_at))


def _row(job: JobOut) -> tuple[Tag, Tag, Tag, Tag]:
    with row([]):
        with tag("td"):
            link(f"{job.student} from {job.foundation}", f"/jobs/{job.id}")
        with tag("td"):
            status = badge(job.status)
        stage, spent = tag("td", text="—"), tag("td", text="—")
        tag("td", text=ago(job.created_at))
        return status, stage, spent, tag("td")
