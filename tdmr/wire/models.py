"""Models of the catalog, which of them fit a budget, and foundations of one's own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tdmr.wire.base import Moment, Out
from tdmr.wire.datasets import CheckOut, Finding


class ModelOut(Out):
    """A model of the catalog."""

    name: str
    roles: list[Literal["foundation", "student"]]
    family: Literal["cnn", "transformer", "hybrid"]
    params: int
    gmacs: float
    input_size: int
    licence: str | None
    offline: bool = Field(description="Whether it works with no network.")
    recommended: bool


class LatencyOut(Out):
    """How fast a model is: single images through its ONNX file."""

    p50_ms: float
    p95_ms: float
    input_size: int
    machine: str
    device: str
    runtime: str
    measured_at: Moment


class ReasonOut(Out):
    """How a model stands to one limit."""

    limit: Literal["max_params", "max_latency_ms", "max_file_bytes"]
    allowed: float
    found: float | None = Field(description="Null: not measured yet.")
    fits: bool | None = Field(description="Null: not measured yet.")
    detail: str


class RecommendedOut(Out):
    """A model, and whether it fits."""

    rank: int
    model: ModelOut
    verdict: Literal["fits", "does_not_fit", "not_measured"]
    reasons: list[ReasonOut]
    latency: LatencyOut | None = Field(description="Null: not measured yet.")
    file_bytes: int | None = Field(description="Of the measured ONNX file.")


class RecommendationsOut(Out):
    """Students ranked: those that fit by their p50, then those that don't, then the unmeasured."""

    machine: str | None = Field(description="Where they were measured; null: nowhere yet.")
    machines: list[str] = Field(description="All machines that there are measurements of.")
    data: list[RecommendedOut]


class OwnModelSummary(Out):
    """A foundation of your own, in a list."""

    id: str = Field(description="What an order names as its `foundation`.")
    name: str
    architecture: str = Field(description="Timm's name: it tells size, mean and deviation.")
    family: Literal["cnn", "transformer", "hybrid"]
    status: Literal["processing", "ready", "invalid"]
    licence: str | None = Field(description="As you stated it; null: not stated.")
    params: int | None = Field(description="Without a classifier; null until it's ready.")
    input_size: int | None = Field(description="Side in pixels; null until it's ready.")
    bytes: int
    sha256: str = Field(description="Of the file.")
    fingerprint: str | None = Field(description="SHA-256 of the loaded weights.")
    created_at: Moment
    settled_at: Moment | None


class OwnModelOut(OwnModelSummary):
    """A foundation of your own: what it is, and what its check found."""

    findings: list[Finding]
    check: CheckOut | None
