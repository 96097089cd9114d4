"""/students: all students, the newest first."""

from __future__ import annotations

from app.dashboard.frame import page
from app.dashboard.pages.student import accuracy
from app.dashboard.parts import ago, count, link, row, table, tag
from app.dashboard.visit import Visit
from tdmr.wire.base import Page
from tdmr.wire.students import StudentSummary

SHOWN = 50


@page("/students", "Students")
async def students(visit: Visit) -> None:
    """Students with their accuracy."""

    async def look() -> list[StudentSummary]:
        return (await visit.get(Page[StudentSummary], "/v1/students", limit=SHOWN)).data

    with tag("section", "card"):
        box = tag("div")

    def show(found: list[StudentSummary]) -> None:
        box.clear()
        with box:
            if not found:
                tag("p", "hint", "No students yet.")
                return
            columns = ["Student", "Foundation", "Accuracy (95 % interval)", "Parameters", "Made"]
            body = table("Students", columns)
            with body:
                for each in found:
                    with row([]):
                        with tag("td"):
                            link(each.architecture, f"/students/{each.id}")
                            if each.partial:
                                tag("span", "hint", " partial")
                        tag("td", text=each.foundation)
                        tag("td", text=accuracy(each.accuracy, each.interval))
                        tag("td", text=count(each.params))
                        tag("td", text=ago(each.created_at))

    await visit.watch("students", look, show, every=2)
