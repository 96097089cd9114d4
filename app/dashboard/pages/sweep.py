"""/sweeps/{id}: the students of one order, how far each is, and which are worth having."""

from __future__ import annotations

from functools import partial

from app.access.scopes import Scope
from app.dashboard.frame import page
from app.dashboard.pages.student import accuracy
from app.dashboard.parts import (
    Box,
    badge,
    button,
    count,
    facts,
    link,
    row,
    show_badge,
    size,
    table,
    tag,
)
from app.dashboard.visit import Visit
from tdmr.wire.sweeps import SweepJob, SweepOut, SweepResult, SweepRow

WEIGHED = {"latency_p50_ms": "the latency of one image", "file_bytes": "the size of its file"}
COLUMNS = ["Student", "Accuracy (95 % interval)", "p50", "File", "Parameters", ""]


@page("/sweeps/{sweep_id}", "Sweep")
async def sweep_page(visit: Visit, sweep_id: str) -> None:
    """One sweep."""
    path = f"/v1/sweeps/{sweep_id}"

    async def look() -> SweepOut:
        return await visit.get(SweepOut, path)

    shown = SweepView(visit, await look())
    await visit.watch(("sweep", sweep_id), look, shown.show)


class SweepView:
    """The parts of the page, changed in place."""

    def __init__(self, visit: Visit, found: SweepOut) -> None:
        with tag("section", "card"):
            with tag("div", "actions"):
                tag("strong", text=f"{len(found.students)} students from {found.foundation}")
                link("its dataset", f"/datasets/{found.dataset_id}")
                path = f"/v1/sweeps/{found.id}/cancel"
                call = partial(visit.attempt, "POST", path, "Its jobs are being called off.")
                self._cancel = button("Cancel", call, "danger")
            self._facts = facts([("Jobs", "—"), ("Foundation forwards", "—")])
        with tag("section", "card"):
            tag("h2", text="Jobs")
            self._body = table("Jobs of the sweep", ["Student", "Status", "", "Its student"])
        self._jobs: dict[str, Line] = {}
        with tag("section", "card"):
            tag("h2", text="Students worth having")
            self._result = Box()
        self._may = visit.may(Scope.JOBS_WRITE)

    def show(self, found: SweepOut) -> None:
        """Show what the sweep is now."""
        self._cancel.set_visibility(self._may and found.status == "open")
        told = ", ".join(f"{number} {status}" for status, number in found.counts.items() if number)
        self._facts["Jobs"].say(told)
        self._facts["Foundation forwards"].say(count(found.foundation_forwards))
        if list(self._jobs) != [each.job_id for each in found.jobs]:  # a retry is one more
            self._body.clear()
            with self._body:
                self._jobs = {each.job_id: Line(each) for each in found.jobs}
        for each in found.jobs:
            self._jobs[each.job_id].show(each)
        self._result.show(found.result, partial(_result, found.result))


class Line:
    """A job's row."""

    def __init__(self, each: SweepJob) -> None:
        with row([]):
            with tag("td"):
                link(each.student, f"/jobs/{each.job_id}")
            with tag("td"):
                self._status = badge(each.status)
            self._why, self._student = tag("td", text=""), tag("td")

    def show(self, each: SweepJob) -> None:
        """Show what the job is now."""
        show_badge(self._status, each.status)
        self._why.say((each.failure_code or each.waiting_reason or "").replace("_", " "))
        if each.student_id and not list(self._student):
            with self._student:
                link("open", f"/students/{each.student_id}")


def _result(result: SweepResult) -> None:
    if not result.rows:
        tag("p", "hint", "None has been made yet.")
        return
    said = f"Accuracy against {WEIGHED[result.cost]}; on the front is what no other beats in both."
    tag("p", "hint", said)
    with table("Students of the sweep", COLUMNS):
        for each in result.rows:
            _student(each)


def _student(each: SweepRow) -> None:
    with row([]):
        with tag("td"):
            link(each.student, f"/students/{each.student_id}")
        tag("td", text=accuracy(each.accuracy, each.interval))
        latency = each.latency_p50_ms
        tag("td", text="—" if latency is None else f"{latency:.2f} ms")
        tag("td", text=size(each.file_bytes))
        tag("td", text=count(each.params))
        tag("td", text="on the front" if each.on_front else "")
