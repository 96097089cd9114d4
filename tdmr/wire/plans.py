"""What an order would find and cost, and how good such estimates have been."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tdmr.wire.base import Moment, Out, Page

Severity = Literal["error", "warning"]
Basis = Literal["same", "scaled", "none"]
Cache = Literal["cold", "warm"]


class PlanFinding(Out):
    """One thing about an order: where, how bad, what, and what to do about it."""

    pointer: str = Field(description="A JSON pointer into the order; empty: the order as a whole.")
    code: str
    severity: Severity = Field(description="A real order is refused for errors alone.")
    detail: str
    advice: str
    allowed: list[str] | None = None
    limit: float | None = None
    used: float | None = None


class StageEstimate(Out):
    """What one stage will take."""

    stage: str
    units: int = Field(description="Images, views or steps.")
    seconds: float | None = Field(description="Null: nothing like it was measured yet.")
    low: float | None
    high: float | None
    measurements: int
    basis: Basis = Field(description="The same models and sizes; others, scaled by GMACs; none.")


class Estimate(Out):
    """What an order will take, by what finished jobs took."""

    seconds: float | None = Field(description="Of work in all; null where a stage isn't measured.")
    low: float | None
    high: float | None
    measurements: int = Field(description="Of the stage that the fewest were found for.")
    basis: Basis = Field(description="The weakest of the stages.")
    stages: list[StageEstimate]
    foundation_forwards: int = Field(description="Stored views: views x training images; warm: 0.")
    other_forwards: int = Field(description="For the audit, the probe and online distillation.")
    cache: Cache = Field(description="Whether the features are there already; cold is assumed.")
    cache_bytes: int | None = Field(description="Reckoned, where no job like it has measured them.")
    memory_bytes: int | None = Field(description="Reckoned from parameters, GMACs and batch size.")
    assumes: list[str] = Field(description="What it rests on, in words.")


class DryRunOut(Out):
    """What would become of an order. Nothing was stored."""

    ok: bool = Field(description="Whether a real order would be taken now.")
    findings: list[PlanFinding]
    estimate: Estimate | None = Field(description="Null where models or dataset aren't known.")


class JobEstimate(Out):
    """What a job was estimated to take when it was ordered, and what it took."""

    seconds: float | None
    low: float | None
    high: float | None
    measurements: int
    basis: Basis
    cache: Cache
    actual_seconds: float | None = Field(None, description="Null until it is trained.")
    error: float | None = Field(None, description="Estimate over actual seconds, less one.")


class EstimateOut(JobEstimate):
    """An estimate that has met its job."""

    job_id: str
    created_at: Moment


class EstimatesOut(Page[EstimateOut]):
    """How good the estimates of your jobs were."""

    count: int = Field(description="Jobs that were estimated and trained.")
    median_absolute_error: float | None = Field(
        description="Relative, over the newest 1,000; null without any."
    )
