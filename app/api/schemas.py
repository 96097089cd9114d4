"""What goes in: models for input and for output (`tdmr.wire`) are never the same."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any

from fastapi import Query
from pydantic import (
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
)
from pydantic_core import core_schema

from app.jobs.service import Terms
from app.plans.checks import Order
from app.settings import DEFAULT_QUEUE
from tdmr.config import Baseline, JobSpec, Strict
from tdmr.wire.jobs import Budget


def _printable(text: str) -> str:
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise ValueError("control characters aren't taken")
    return text


class _Printable:
    """Text without control characters, in its JSON schema too."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_after_validator_function(_printable, handler(source))

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> Any:
        return {**handler(core), "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"}


Printable = _Printable()


DryRun = Annotated[
    bool, Query(description="Check the order, estimate what it takes, and store nothing.")
]
MetadataName = Annotated[str, StringConstraints(min_length=1, max_length=64), Printable]
MetadataValue = Annotated[str, StringConstraints(max_length=500), Printable]


class JobIn(JobSpec):
    """An order for one student."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "dataset_id": "ds_01aa5b3c1d2e0123456789abcdef",
                    "foundation": "letters_vit",
                    "student": "test_resnet",
                    "options": {"seed": 0},
                    "baselines": ["scratch", "kd"],
                    "metadata": {"purpose": "first try"},
                }
            ]
        }
    )

    dataset_id: str = Field(pattern=r"^[A-Za-z0-9_]{1,40}$", description="A dataset that is ready.")
    metadata: dict[MetadataName, MetadataValue] = Field(
        default_factory=dict, max_length=32, description="Yours; given back as it came."
    )

    budget: Budget | None = Field(None, description="Null: no limit.")
    priority: int = Field(
        0, ge=-100, le=100, description="Among your own waiting jobs; the highest comes first."
    )
    queue: str = Field(DEFAULT_QUEUE, max_length=40, description="One of the service's queues.")

    def spec(self) -> JobSpec:
        """What the worker is to do."""
        known = set(JobSpec.model_fields)
        return JobSpec.model_validate(self.model_dump(include=known, exclude_unset=True))

    def terms(self) -> Terms:
        """How the job is to be treated."""
        seconds = self.budget.max_seconds if self.budget else None
        return Terms(queue=self.queue, priority=self.priority, max_seconds=seconds)

    def order(self) -> Order:
        """The order itself, to be checked and placed."""
        return Order(self.dataset_id, self.spec(), self.terms())


class RetryIn(Strict):
    """What to change in an order that is retried: a JSON merge patch (RFC 7396)."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"options": {"training": {"batch_size": 16}}}]},
    )

    options: dict[str, Any] = Field(default_factory=dict)
    baselines: list[Baseline] | None = None
    budget: Budget | None = None
    priority: int | None = None
    queue: str | None = None
