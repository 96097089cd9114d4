"""/jobs/{id}: a job while it's made: stages, curves, log; stop it, go on, and what went wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

from nicegui import ui

from app.access.scopes import Scope
from app.dashboard.charts import Lines
from app.dashboard.curves import JobLog
from app.dashboard.frame import page
from app.dashboard.parts import (
    Tag,
    ago,
    badge,
    button,
    facts,
    link,
    meter,
    set_meter,
    show_badge,
    span,
    tag,
)
from app.dashboard.visit import Visit
from tdmr.schedule import Schedule
from tdmr.stages import OURS, of_job
from tdmr.wire.jobs import JobOut

TRAINED = (OURS, "reprogram")
ENDED = ("succeeded", "failed", "cancelled")
MEASURES = ("accuracy", "learning_rate", "images per second")
ACTIONS = (
    (
        "cancel",
        "Cancel",
        "danger",
        "The job is being called off.",
        ("queued", "running", "pausing", "paused"),
    ),
    ("pause", "Pause", "plain", "The job stops behind its next checkpoint.", ("queued", "running")),
    ("resume", "Resume", "", "The job goes on.", ("paused",)),
)


@dataclass(frozen=True)
class Seen:
    """A job, and how much of its log has been read."""

    job: JobOut
    entries: int


@page("/jobs/{job_id}", "Job")
async def job_page(visit: Visit, job_id: str) -> None:
    """One job."""
    job = await visit.get(JobOut, f"/v1/jobs/{job_id}")
    log = JobLog(job_id, job.options.training.batch_size)
    shown = JobView(visit, job)

    async def look() -> tuple[Seen, JobLog]:
        found = await visit.get(JobOut, f"/v1/jobs/{job_id}")
        return Seen(found, await log.read(visit)), log

    await visit.watch(("job", job_id), look, lambda seen: shown.show(*seen))


class JobView:
    """The parts of the page, changed in place."""

    def __init__(self, visit: Visit, job: JobOut) -> None:
        self._visit, self._id, self._failure = visit, job.id, ""
        with tag("section", "card"):
            with tag("div", "actions"):
                self._badge = badge(job.status)
                tag("strong", text=f"{job.student} from {job.foundation}")
                link("its dataset", f"/datasets/{job.dataset_id}")
                if job.sweep_id:
                    link("its sweep", f"/sweeps/{job.sweep_id}")
                self._student = tag("span")
            self._stages = _timeline(job)
            self._bar = meter("Progress of the stage")
            self._facts = facts(
                [
                    (name, "—")
                    for name in (
                        "Stage",
                        "Step",
                        "Left in this stage",
                        "Work so far",
                        "Estimate",
                        "Place in queue",
                        "Attempt",
                        "Ordered",
                    )
                ]
            )
            self._buttons = self._actions() if visit.may(Scope.JOBS_WRITE) else {}
        self._trouble = tag("div").props('role="alert"')
        with tag("div", "grid wide"):
            with tag("section", "card"):
                tag("h2", text="Losses")
                self._losses = Lines("Losses of the stage over its steps")
            with tag("section", "card"):
                tag("h2", text="Accuracy on the training batches")
                self._accuracy = Lines("Accuracy on the training batches over the steps")
            with tag("section", "card"):
                tag("h2", text="Learning rate")
                self._rate = Lines("Learning rate over the steps", low=True)
            with tag("section", "card"):
                tag("h2", text="Images per second")
                self._speed = Lines("Images per second over the steps", low=True)
        with tag("section", "card"):
            tag("h2", text="Schedule of stage 2")
            chart = Lines("Weights of the losses over stage 2", low=True)
            chart.show(schedule(job))
        with tag("section", "card"):
            tag("h2", text="Log")
            self._log = tag("pre", "log", "").props('tabindex="0" aria-label="Log"')

    def show(self, seen: Seen, log: JobLog) -> None:
        """Show what the job is now."""
        job = seen.job
        show_badge(self._badge, job.status)
        _mark(self._stages, job)
        set_meter(self._bar, _share(job))
        for name, value in _told(job).items():
            self._facts[name].say(value)
        for name, *_, states in ACTIONS:
            if name in self._buttons:
                self._buttons[name].set_visibility(job.status in states)
        stage = next((s for s in (job.stage and job.stage.name, *TRAINED) if s in log.curves), "")
        curves = log.shown(stage)
        self._losses.show({n: p for n, p in curves.items() if n not in MEASURES})
        self._accuracy.show(log.shown(stage, ("accuracy",)))
        self._rate.show(log.shown(stage, ("learning_rate",)))
        self._speed.show(log.shown(stage, ("images per second",)))
        tail = job.failure.log if job.failure else []
        self._log.say("\n".join([*log.lines, *tail]) or "Nothing yet.")
        self._show_end(job)

    def _actions(self) -> dict[str, Tag]:
        with tag("div", "actions"):
            return {
                name: button(text, partial(self._act, name, said), classes)
                for name, text, classes, said, _ in ACTIONS
            }

    async def _act(self, verb: str, said: str) -> None:
        await self._visit.attempt("POST", f"/v1/jobs/{self._id}/{verb}", said)

    def _show_end(self, job: JobOut) -> None:
        state = json.dumps([job.status, job.student_id])
        if state == self._failure:
            return
        self._failure = state
        self._student.clear()
        if job.student_id:
            with self._student:
                link(
                    "partial student" if job.partial else "the student",
                    f"/students/{job.student_id}",
                    "button",
                )
        self._trouble.clear()
        again = job.status in ("failed", "cancelled") or bool(job.partial)
        if again:
            with self._trouble:
                _explain(self._visit, job)


def _share(job: JobOut) -> float:
    if job.status == "succeeded":
        return 1.0
    return job.stage.progress if job.stage else 0.0


def _told(job: JobOut) -> dict[str, str]:
    estimate = job.estimate
    expected = span(estimate.seconds) if estimate and estimate.seconds else "not measured yet"
    if estimate and estimate.error is not None:
        expected += f" ({100 * estimate.error:+.0f} %)"
    waits = (job.waiting_reason or "").replace("_", " ")
    return {
        "Stage": f"{job.stage.name} ({job.stage.index} of {job.stage.count})" if job.stage else "—",
        "Step": f"{job.step:,} of {job.steps:,}" if job.step is not None and job.steps else "—",
        "Left in this stage": span(job.eta_seconds) if job.status == "running" else "—",
        "Work so far": span(job.spent_seconds),
        "Estimate": expected,
        "Place in queue": f"{job.queue_position}, {waits}" if job.queue_position else waits or "—",
        "Attempt": f"{job.attempt} of {job.max_attempts}",
        "Ordered": ago(job.created_at),
    }


def _timeline(job: JobOut) -> list[Tag]:
    with tag("ol", "steps"):
        return [tag("li", text=name) for name in of_job(job.baselines)]


def _mark(shown: list[Tag], job: JobOut) -> None:
    index = job.stage.index if job.stage else 0
    if job.status == "packaging":
        index = len(shown)
    for number, item in enumerate(shown, 1):
        done = job.status == "succeeded" or number < index
        now = number == index and job.status not in ENDED
        item.classes(replace="done" if done else "now" if now else "")


def schedule(job: JobOut) -> dict[str, list[tuple[float, float]]]:
    """The weights of stage 2 over its steps."""
    steps = job.options.training.steps
    found = Schedule(job.options.distil, job.options.reprogram.taps).series(41)
    reused = job.options.distil.head == "reused"
    names = ("ce", "kd", "proxy", "relation", *(("read",) if reused else ()))
    return {
        name: [
            (round(t * steps), round(y, 4)) for t, y in zip(found["t"], found[name], strict=True)
        ]
        for name in names
    }


def _explain(visit: Visit, job: JobOut) -> None:
    """What happened, and what to do about it."""
    failure = job.failure
    with tag("section", "card trouble"):
        tag("h2", text=_title(job))
        if failure is not None:
            tag("p", text=failure.detail)
            if failure.suggestion:
                with tag("div", "advice"):
                    tag("strong", text="What to do: ")
                    tag("span", text=failure.suggestion)
        if not visit.may(Scope.JOBS_WRITE):
            return
        change = failure.change if failure else None
        with tag("div", "actions"):
            if change:
                button("Retry with the change", partial(_retry, visit, job.id, change))
                tag("code", text=json.dumps(change))
            button("Retry as it was", partial(_retry, visit, job.id, {}), "plain")


def _title(job: JobOut) -> str:
    if job.failure is not None:
        where = f" in {job.failure.stage}" if job.failure.stage else ""
        return f"Failed{where}: {job.failure.code.replace('_', ' ')}"
    return "Called off" if job.status == "cancelled" else "Ended before its training did"


async def _retry(visit: Visit, job_id: str, change: dict[str, Any]) -> None:
    made = await visit.attempt("POST", f"/v1/jobs/{job_id}/retry", "Ordered again.", change)
    if made is not None:
        ui.navigate.to(f"/jobs/{made['id']}")
