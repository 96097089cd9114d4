"""/v1/models: what a job can name, and what of it fits a budget."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query, Response

from app.access.keys import Caller
from app.access.scopes import Scope
from app.api import pages
from app.api.core import CallerDep, Core, CoreDep
from app.api.foundations import summarise
from app.api.guard import needs, router
from app.api.pages import After, Limit
from app.api.schemas import Printable
from app.errors import ErrorItem, InvalidError
from app.foundations import service as foundations
from app.models import Latency, Model
from app.students import latencies, recommend
from app.students.recommend import Recommended
from tdmr import catalog
from tdmr.catalog import CatalogEntry
from tdmr.wire.base import Page
from tdmr.wire.models import ModelOut, OwnModelSummary, RecommendationsOut

routes = router()

Owned = Annotated[bool, Query(description="Your own, by pages; `limit` and `after` are of these.")]
MaxParams = Annotated[int | None, Query(gt=0, le=10**15, description="Parameters.")]
MaxLatency = Annotated[
    float | None,
    Query(
        gt=0,
        le=10**9,
        allow_inf_nan=False,
        description="Milliseconds that 95 % of single images may take.",
    ),
]
MaxBytes = Annotated[int | None, Query(gt=0, le=10**15, description="Of the ONNX file.")]
Machine = Annotated[
    str | None,
    Query(max_length=300, description="One of `machines`; else that with the most models."),
    Printable,
]


@routes.get("/models")
@needs(Scope.MODELS_READ)
def list_models(
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    role: Literal["foundation", "student"] | None = None,
    owned: Owned = False,
    limit: Limit = 20,
    after: After = None,
) -> Page[ModelOut] | Page[OwnModelSummary]:
    """The recommended models; every other timm model that offers taps works by its name, too.

    Of your own with `owned`: they are foundations, and come in pages, the newest first.
    """
    if owned:
        return _owned(response, core, caller, role, limit, pages.after_id(after))
    found = [_described(entry) for entry in catalog.entries(role)]
    return Page[ModelOut](data=found, has_more=False, next_cursor=None)


def _owned(
    response: Response,
    core: Core,
    caller: Caller,
    role: str | None,
    limit: int,
    before: str | None,
) -> Page[OwnModelSummary]:
    found: list[Model] = []
    if role != "student":
        with core.database.read() as session:
            found = foundations.newest(session, caller.owner, before, limit + 1)
    rows, has_more = pages.cut(found, limit)
    cursor = pages.encode(rows[-1].id) if has_more else None
    if cursor is not None:
        query = {"role": role, "owned": "true", "limit": limit, "after": cursor}
        pages.link_next(response, "/v1/models", query)
    data = [summarise(row) for row in rows]
    return Page[OwnModelSummary](data=data, has_more=has_more, next_cursor=cursor)


@routes.get("/models/recommendations")
@needs(Scope.MODELS_READ)
def recommend_models(
    core: CoreDep,
    caller: CallerDep,
    role: Literal["student"] = "student",
    max_params: MaxParams = None,
    max_latency_ms: MaxLatency = None,
    max_file_bytes: MaxBytes = None,
    machine: Machine = None,
) -> RecommendationsOut:
    """Students by measured latency, and how each stands to your limits."""
    with core.database.read() as session:
        rows = latencies.known(session, caller.owner)
    machines = recommend.machines(rows)
    if machine is not None and machine not in machines:
        item = ErrorItem(
            pointer="/query/machine",
            code="unknown_machine",
            detail="Nothing was measured on a machine of that name.",
            allowed=machines,
        )
        raise InvalidError("The machine isn't known.", [item])
    chosen = machine or next(iter(machines), None)
    limits = {
        "max_params": max_params,
        "max_latency_ms": max_latency_ms,
        "max_file_bytes": max_file_bytes,
    }
    given = {name: value for name, value in limits.items() if value is not None}
    ranked = recommend.rank(catalog.entries(role), rows, chosen, given)
    data = [_recommended(place, each) for place, each in enumerate(ranked, 1)]
    return RecommendationsOut.model_validate(
        {"machine": chosen, "machines": machines, "data": data}
    )


def _described(entry: CatalogEntry) -> ModelOut:
    return ModelOut.model_validate(entry.model_dump(include=set(ModelOut.model_fields)))


def _recommended(place: int, each: Recommended) -> dict[str, Any]:
    row = each.latency
    return {
        "rank": place,
        "model": _described(each.entry),
        "verdict": each.verdict,
        "reasons": [vars(reason) for reason in each.reasons],
        "latency": None if row is None else _latency(row),
        "file_bytes": None if row is None else row.file_bytes,
    }


def _latency(row: Latency) -> dict[str, Any]:
    names = ("p50_ms", "p95_ms", "input_size", "machine", "device", "runtime", "measured_at")
    return {name: getattr(row, name) for name in names}
