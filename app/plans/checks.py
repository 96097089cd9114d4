"""Everything that can be said of an order before it is one: all findings at once.

The same checks refuse a real order, for their errors, and answer a dry run. All work in the
caller's transaction, and none writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access import quotas
from app.errors import (
    DatasetNotReadyError,
    InvalidError,
    ModelNotReadyError,
    UnknownModelError,
)
from app.foundations import service as foundations
from app.jobs.service import Terms
from app.models import Dataset, Model
from app.plans import options, resources
from app.plans.findings import Finding, error, warning
from app.settings import Settings
from tdmr import catalog, errors, own
from tdmr.config import JobSpec
from tdmr.wire.plans import Estimate

ROLES: tuple[Literal["foundation", "student"], ...] = ("foundation", "student")
MODEL_ADVICE = "GET /v1/models lists those that are recommended."


@dataclass(frozen=True)
class Order:
    """What is asked for: `count` jobs like this at once."""

    dataset_id: str
    spec: JobSpec
    terms: Terms
    count: int = 1


def certain(session: Session, owner: str, order: Order, settings: Settings) -> list[Finding]:
    """What keeps an order from being taken, the gravest first."""
    dataset = dataset_of(session, owner, order.dataset_id)
    known = foundations.as_known(session, owner, order.spec)
    return [
        *_quotas(session, owner, order.count, settings),
        *_models(session, owner, order.spec),
        *_queue(order.terms.queue, settings),
        *(_readiness(dataset) or _classes(dataset)),
        *options.contradictions(known),
    ]


def possible(
    session: Session, owner: str, order: Order, estimate: Estimate | None, settings: Settings
) -> list[Finding]:
    """What an order would be taken with, and its owner should know of: warnings."""
    dataset = dataset_of(session, owner, order.dataset_id)
    spec = foundations.as_known(session, owner, order.spec)
    found = [
        *options.doubts(spec),
        *resources.models(spec, own_foundation=spec is not order.spec),
        *resources.workers(session, order.terms, spec.options.devices, settings, estimate),
        *resources.disk(settings, estimate),
        *resources.budget(order.terms.max_seconds, estimate),
    ]
    if dataset is not None and dataset.status == "ready":
        found += [*_untested(dataset), *options.few_images(spec, dataset)]
    return found


def refuse(findings: Sequence[Finding]) -> None:
    """Raise the error of the first finding that has one, with all such findings in `errors`."""
    refused = [each for each in findings if each.refusal is not None]
    if not refused:
        return
    first = refused[0].refusal
    assert first is not None
    same = [each for each in refused if type(each.refusal) is type(first)]
    said = " ".join(each.said for each in same)
    raise type(first)(said, [each.item() for each in refused], headers=first.headers)


def dataset_of(session: Session, owner: str, dataset_id: str) -> Dataset | None:
    """An owner's dataset, or None; it isn't deleted before the transaction is over."""
    return session.scalars(
        select(Dataset)
        .where(Dataset.id == dataset_id, Dataset.owner == owner, Dataset.deleted_at.is_(None))
        .with_for_update(read=True)
    ).one_or_none()


def _quotas(session: Session, owner: str, count: int, settings: Settings) -> Iterator[Finding]:
    for exceeded in quotas.job_excesses(session, owner, settings, count):
        (item,) = exceeded.errors
        yield Finding(
            pointer="",
            code=item.code,
            severity="error",
            detail=exceeded.detail,
            advice="Wait until some have ended, or ask the operator for more.",
            limit=item.limit,
            used=item.used,
            refusal=exceeded,
        )


def _models(session: Session, owner: str, spec: JobSpec) -> Iterator[Finding]:
    for role in ROLES:
        name = getattr(spec, role)
        if role == "foundation" and own.is_own(name):
            found = _unready(foundations.named(session, owner, name), name)
        else:
            found = unknown_model(name, role, f"/{role}")
        if found is not None:
            yield found


def _unready(model: Model | None, name: str) -> Finding | None:
    """What keeps an own foundation from being one; nobody learns of another's."""
    where = "/foundation"
    if model is None:
        return error(
            UnknownModelError,
            where,
            errors.UnknownModelError.code,
            f"You have no model {name!r}.",
            "GET /v1/models?owned=true lists yours.",
            allowed=[entry.name for entry in catalog.entries("foundation")],
        )
    code, at = ModelNotReadyError.code, f"GET /v1/models/{model.id}"
    if model.status == "processing":
        detail, advice = "The model is still processing.", f"Ask {at} until it's ready."
        wait = {"Retry-After": "2"}
        return error(ModelNotReadyError, where, code, detail, advice, headers=wait)
    if model.status != "ready":
        advice = f"{at} lists the findings; fix them and upload it again."
        return error(ModelNotReadyError, where, code, f"The model is {model.status}.", advice)
    return None


def unknown_model(
    name: str, role: Literal["foundation", "student"], pointer: str
) -> Finding | None:
    """What is wrong with a model's name. Only names of the catalog are taken, never paths."""
    try:
        catalog.require(name, role)
    except errors.UnknownModelError as unknown:
        near = get_close_matches(name.partition(".")[0], catalog.names(role), n=5, cutoff=0.5)
        return error(
            UnknownModelError,
            pointer,
            errors.UnknownModelError.code,
            unknown.detail,
            unknown.suggestion or MODEL_ADVICE,
            allowed=near or [entry.name for entry in catalog.entries(role)],
        )
    return None


def _queue(name: str, settings: Settings) -> Iterator[Finding]:
    if name not in settings.queues:
        yield error(
            InvalidError,
            "/queue",
            "unknown_queue",
            f"There is no queue {name!r}.",
            "Name one of this service's queues, or leave it out.",
            allowed=list(settings.queues),
        )


def _readiness(dataset: Dataset | None) -> list[Finding]:
    where = "/dataset_id"
    if dataset is None:
        advice = "Take the id of one of your datasets: GET /v1/datasets lists them."
        return [error(InvalidError, where, "unknown_dataset", "You have no such dataset.", advice)]
    code, at = DatasetNotReadyError.code, f"GET /v1/datasets/{dataset.id}"
    if dataset.status == "processing":
        detail, advice = "The dataset is still processing.", f"Ask {at} until it's ready."
        wait = {"Retry-After": "2"}
        return [error(DatasetNotReadyError, where, code, detail, advice, headers=wait)]
    if dataset.status != "ready":
        advice = f"{at} lists the findings; fix them and upload it again."
        return [
            error(DatasetNotReadyError, where, code, f"The dataset is {dataset.status}.", advice)
        ]
    return []


def _classes(dataset: Dataset | None) -> list[Finding]:
    """What `tdmr.data.index.check_trainable` would stop the job for."""
    if dataset is None or dataset.splits is None or dataset.classes is None:
        return []
    where, splits, found = "/dataset_id", dataset.splits, []
    if len(dataset.classes) < 2:
        detail = f"The dataset has {len(dataset.classes)} class(es); a classifier needs 2."
        found.append(
            error(InvalidError, where, "one_class", detail, "Upload one with more classes.")
        )
    missing = [name for name in dataset.classes if not splits.get("train", {}).get(name)]
    if missing:
        detail = f"Class {_some(missing)} has no image to train on."
        found.append(
            error(
                InvalidError, where, "class_not_trained", detail, "Add some to the training split."
            )
        )
    if not held_out(dataset):
        detail = "No image is held out, so that accuracy can't be measured."
        advice = "Upload it with a test split, or without splits and 2 images of each class."
        found.append(error(InvalidError, where, "nothing_held_out", detail, advice))
    return found


def held_out(dataset: Dataset) -> dict[str, int]:
    """Images that accuracy is measured on, by class: `test`, or `val` where there is no test."""
    splits = dataset.splits or {}
    for name in ("test", "val"):
        counts = {label: count for label, count in splits.get(name, {}).items() if count}
        if counts:
            return counts
    return {}


def _untested(dataset: Dataset) -> Iterator[Finding]:
    tested = held_out(dataset)
    missing = [name for name in dataset.classes or () if name not in tested]
    if tested and missing:
        yield warning(
            "/dataset_id",
            "class_not_tested",
            f"No image of {_some(missing)} is held out: the accuracy says nothing of it.",
            "Add images of it to the test split.",
        )


def _some(labels: Sequence[str], most: int = 5) -> str:
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(repr(label) for label in labels[:most]) + more
