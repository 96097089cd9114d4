"""/new: an order, with what the dry run says of it beside the form while it's filled in."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nicegui import ui
from starlette.requests import Request

from app.access.scopes import Scope
from app.dashboard.forms import box, enable, label, member, number, select, tick
from app.dashboard.frame import page
from app.dashboard.inside import RefusedError
from app.dashboard.parts import Tag, button, count, size, span, tag
from app.dashboard.visit import Visit
from tdmr.config import BASELINES, DEFAULT_BASELINES
from tdmr.wire.base import Page
from tdmr.wire.datasets import DatasetSummary
from tdmr.wire.models import ModelOut, OwnModelSummary, RecommendationsOut
from tdmr.wire.plans import DryRunOut, Estimate, PlanFinding

PAUSE_SECONDS = 0.4  # after the last change, before the server is asked
NO_LICENCE = "licence not stated"
SIGNS = {"fits": "✓ fits", "does_not_fit": "✕ too much", "not_measured": "○ not measured yet"}


@dataclass
class Order:
    """What has been filled in so far."""

    dataset_id: str = ""
    foundation: str = ""
    students: list[str] = field(default_factory=list)
    baselines: set[str] = field(default_factory=lambda: set(DEFAULT_BASELINES))
    options: dict[str, float | None] = field(default_factory=dict)
    max_seconds: float | None = None

    def body(self) -> dict[str, Any]:
        """The order as the API takes it: a job, or a sweep of several students."""
        options: dict[str, Any] = {}
        for name, value in self.options.items():
            if value is not None:
                group, _, last = name.rpartition(".")
                (options.setdefault(group, {}) if group else options)[last] = value
        made: dict[str, Any] = {
            "dataset_id": self.dataset_id,
            "foundation": self.foundation,
            "baselines": [name for name in BASELINES if name in self.baselines],
            "options": options,
        }
        if self.max_seconds is not None:
            made["budget"] = {"max_seconds": self.max_seconds}
        if len(self.students) == 1:
            return {**made, "student": self.students[0]}
        return {**made, "students": list(self.students)}

    @property
    def path(self) -> str:
        """Where it's sent to."""
        return "/v1/jobs" if len(self.students) == 1 else "/v1/sweeps"

    @property
    def complete(self) -> bool:
        """Whether there is something to ask about."""
        return bool(self.dataset_id and self.foundation and self.students)


@dataclass(frozen=True)
class Choice:
    """A model on a card."""

    name: str
    title: str
    about: str
    terms: str

    @classmethod
    def of(cls, model: ModelOut) -> Choice:
        """One of the catalog's."""
        about = f"{model.family}, {count(model.params)} parameters, {model.gmacs:.2g} GMACs"
        where = "works offline" if model.offline else "weights from the hub"
        return cls(model.name, model.name, about, f"{model.licence or NO_LICENCE}; {where}")

    @classmethod
    def of_own(cls, model: OwnModelSummary) -> Choice:
        """One of the visitor's own."""
        about = f"{model.family}, {count(model.params)} parameters, {model.architecture}"
        return cls(model.id, model.name, about, f"{model.licence or NO_LICENCE}; your own")


# Name, label, what is allowed, and what it's for.
SIDE = "The student's input side; empty: its own default."
VIEWS = "What the foundation sees of each; empty: by the number of images."
NUMBERS = (
    ("image_size", "Image size, pixels", "min=16 max=1024 step=1", SIDE),
    ("training.steps", "Training steps", "min=1 max=10000000 step=1", "2,000 by default."),
    ("training.batch_size", "Batch size", "min=2 max=65536 step=1", "32 by default."),
    ("training.learning_rate", "Learning rate", "min=0 max=1 step=any", "0.002 by default."),
    ("views.count", "Views per image", "min=1 max=1024 step=1", VIEWS),
    ("seed", "Seed", "min=0 max=2147483647 step=1", "The same seed gives the same student."),
)


@page("/new", "New job")
async def new_job(visit: Visit) -> None:
    """The form."""
    datasets, own, foundations, students = await asyncio.gather(
        visit.get(Page[DatasetSummary], "/v1/datasets", limit=100),
        visit.get(Page[OwnModelSummary], "/v1/models", owned="true", limit=100),
        visit.get(Page[ModelOut], "/v1/models", role="foundation"),
        visit.get(Page[ModelOut], "/v1/models", role="student"),
    )
    ready = [each for each in datasets.data if each.status == "ready"]
    request: Request = visit.client.request
    form = Form(visit, request.query_params.get("dataset", ""))
    with tag("div", "order"):
        with tag("form").props('aria-label="Order"'):
            form.dataset(ready)
            mine = [Choice.of_own(each) for each in own.data if each.status == "ready"]
            form.foundation([*(Choice.of(each) for each in foundations.data), *mine])
            form.budget()
            form.students([Choice.of(each) for each in students.data])
            form.options()
        with tag("aside", "card").props('aria-label="What would become of it" aria-live="polite"'):
            form.said()
    ui.timer(0, form.begin, once=True)  # the form is there before what is said of it


class Form:
    """The fields, and what is said of them."""

    def __init__(self, visit: Visit, dataset_id: str) -> None:
        self._visit = visit
        self._order = Order(dataset_id)
        self._limits: dict[str, float | None] = {}
        self._verdicts: dict[str, Tag] = {}
        self._asked = 0

    def dataset(self, ready: list[DatasetSummary]) -> None:
        """Which images."""
        label("dataset", "Dataset")
        if not ready:
            tag("p", "hint", "No dataset is ready: upload one first.")
        names = {each.id: each.name for each in ready}
        if self._order.dataset_id not in names:
            self._order.dataset_id = next(iter(names), "")

        async def changed(dataset_id: str) -> None:
            self._order.dataset_id = dataset_id
            await self.look()

        select(names, self._order.dataset_id, changed).props('id="dataset"')

    def foundation(self, models: list[Choice]) -> None:
        """Which knowledge."""

        async def changed(name: str, _: bool) -> None:
            self._order.foundation = name
            await self.look()

        self._order.foundation = models[0].name if models else ""
        with tag("fieldset"):
            tag("legend", text="Foundation")
            with tag("div", "choices"):
                for model in models:
                    first = model is models[0]
                    _card(model, "radio", "foundation", changed, checked=first)

    def budget(self) -> None:
        """What a student may cost."""
        with tag("fieldset"):
            tag("legend", text="Budget for the student")
            with tag("div", "pairs"):
                for name, title in (
                    ("max_latency_ms", "Latency, ms (p50)"),
                    ("max_params", "Parameters"),
                    ("max_file_bytes", "File, bytes"),
                ):
                    with tag("div"):
                        number(f"limit-{name}", title, "min=0 step=any", self._limit(name))

    def students(self, models: list[Choice]) -> None:
        """Which students: one is a job, several are a sweep."""

        async def changed(name: str, checked: bool) -> None:
            kept = [each for each in self._order.students if each != name]
            self._order.students = [*kept, name] if checked else kept
            await self.look()

        self._order.students = [models[0].name] if models else []
        with tag("fieldset"):
            tag("legend", text="Students (several share the first stage)")
            with tag("div", "choices"):
                for model in models:
                    first = model is models[0]
                    verdict = _card(model, "checkbox", "student", changed, checked=first)
                    self._verdicts[model.name] = verdict

    def options(self) -> None:
        """What most people leave as it is."""
        with tag("fieldset"):
            tag("legend", text="Compare with")
            for baseline in BASELINES:
                shown = "the foundation's probe" if baseline == "probe" else baseline
                chosen = baseline in self._order.baselines
                tick(shown, partial(self._baseline, baseline), ticked=chosen)
        with tag("details"):
            tag("summary", text="Options")
            with tag("div", "pairs"):
                for name, title, allowed, why in NUMBERS:
                    with tag("div"):
                        number(name.replace(".", "-"), title, allowed, self._option(name), why)
                with tag("div"):
                    why = "Then the student so far is packaged."
                    number("max-seconds", "Most seconds of work", "min=1", self._seconds, why)

    def said(self) -> None:
        """Where findings and estimate are shown, and the order is placed."""
        tag("h2", text="What would become of it")
        self._box = tag("div", "said")
        self._submit = button("Submit", self._place)
        self._submit.set_visibility(self._visit.may(Scope.JOBS_WRITE))

    async def begin(self) -> None:
        """Say what there is to say of the form as it stands."""
        await self.recommend()
        await self.look()

    async def recommend(self) -> None:
        """Say of each student whether it fits the budget."""
        try:
            path = "/v1/models/recommendations"
            found = await self._visit.get(RecommendationsOut, path, **self._limits)
        except RefusedError:
            return
        for each in found.data:
            verdict = self._verdicts.get(each.model.name)
            if verdict is not None:
                speed = f"{each.latency.p50_ms:.1f} ms, " if each.latency else ""
                verdict.say(f"{speed}{SIGNS[each.verdict]}")

    async def look(self) -> None:
        """Ask what would become of the order, once nothing has changed for a moment."""
        self._asked += 1
        asked = self._asked
        await asyncio.sleep(PAUSE_SECONDS)
        if asked != self._asked or not self._order.complete:
            if not self._order.complete:
                self._show(None, "Choose a dataset, a foundation and a student.")
            return
        try:
            answer = await self._visit.send(
                "POST", self._order.path, self._order.body(), dry_run="true"
            )
        except RefusedError as refused:
            self._show(None, refused.said)
            return
        if asked == self._asked:
            self._show(DryRunOut.model_validate(answer), "")

    def _show(self, found: DryRunOut | None, trouble: str) -> None:
        self._box.clear()
        ok = found is not None and found.ok
        enable(self._submit, ok)
        with self._box:
            if trouble:
                tag("p", "refusal", trouble)
            if found is not None:
                tag("p", text="It would be taken." if ok else "It would be refused.")
                for each in found.findings:
                    _finding(each)
                if found.estimate is not None:
                    _estimate(found.estimate)

    async def _place(self) -> None:
        made = await self._visit.attempt("POST", self._order.path, "Ordered.", self._order.body())
        if made is None:
            return
        ui.navigate.to(f"{self._order.path.removeprefix('/v1')}/{made['id']}")

    def _limit(self, name: str) -> Any:
        async def change(value: float | None) -> None:
            whole = value if name == "max_latency_ms" or value is None else int(value)
            self._limits[name] = whole
            await self.recommend()

        return change

    def _option(self, name: str) -> Any:
        async def change(value: float | None) -> None:
            whole = value is not None and value.is_integer()
            self._order.options[name] = int(value) if whole and value is not None else value
            await self.look()

        return change

    async def _seconds(self, value: float | None) -> None:
        self._order.max_seconds = value
        await self.look()

    async def _baseline(self, name: str, ticked: bool) -> None:
        member(self._order.baselines, name)(ticked)
        await self.look()


def _card(model: Choice, kind: str, group: str, changed: Any, *, checked: bool) -> Tag:
    """A model to choose; gives the place for its verdict."""
    with tag("label", "choice"):
        made = box(partial(changed, model.name), ticked=checked, kind=kind)
        made._props |= {"name": group, "value": model.name}
        tag("b", text=model.title)
        tag("small", text=model.about)
        tag("small", text=model.terms)
        return tag("small", text="")


def _finding(each: PlanFinding) -> None:
    with tag("div", "advice" if each.severity == "warning" else "advice wrong"):
        tag("strong", text=f"{each.severity.capitalize()}: ")
        tag("span", text=f"{each.detail} {each.advice}")


def _estimate(found: Estimate) -> None:
    tag("h3", text="Estimate")
    low, high = found.low, found.high
    took = span(found.seconds)
    if low is not None and high is not None:
        took += f" ({span(low)} to {span(high)})"
    rows = (
        ("Work", took if found.seconds is not None else "not measured yet"),
        ("Foundation forwards", count(found.foundation_forwards)),
        ("Cache", f"{size(found.cache_bytes)}, {found.cache}"),
        ("Memory", size(found.memory_bytes)),
    )
    with tag("dl", "facts"):
        for name, value in rows:
            with tag("div"):
                tag("dt", text=name)
                tag("dd", text=value)
