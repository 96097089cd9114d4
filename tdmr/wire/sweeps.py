"""Sweeps: many students of one foundation on one dataset, and which of them are worth having."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tdmr.config import Baseline, DistillOptions
from tdmr.wire.base import Moment, Out
from tdmr.wire.jobs import Status, WaitingReason

SweepStatus = Literal["open", "ended"]
CostAxis = Literal["latency_p50_ms", "file_bytes"]


class SweepSummary(Out):
    """A sweep, in a list."""

    id: str
    name: str | None
    status: SweepStatus = Field(description="`ended` once every job has.")
    dataset_id: str
    foundation: str
    students: list[str]
    counts: dict[Status, int] = Field(description="Jobs by their status.")
    created_at: Moment


class SweepJob(Out):
    """One job of a sweep."""

    job_id: str
    student: str
    status: Status
    waiting_reason: WaitingReason | None = Field(
        description="`sweep`: until another of its jobs has shown the views to the foundation."
    )
    retry_of: str | None
    failure_code: str | None
    student_id: str | None


class SweepRow(Out):
    """A student that came of a sweep."""

    student_id: str
    job_id: str
    student: str = Field(description="Its architecture.")
    partial: bool
    accuracy: float | None
    interval: list[float] | None = Field(description="95 % interval of the accuracy.")
    params: int | None
    file_bytes: int | None = Field(description="Of its ONNX file, else of its weights.")
    latency_p50_ms: float | None = Field(description="Of single images; null: not measured.")
    machine: str | None = Field(description="Where that was measured.")
    on_front: bool = Field(
        description="No other student is at least as accurate at no more cost, and better in one."
    )


class SweepResult(Out):
    """The Pareto table of a sweep: the most accurate student first."""

    cost: CostAxis = Field(
        description="What accuracy is weighed against: file_bytes where a latency is missing, or "
        "was measured on another machine."
    )
    rows: list[SweepRow]


class SweepOut(SweepSummary):
    """A sweep: its jobs, what they cost the foundation, and what came of them."""

    options: DistillOptions
    baselines: list[Baseline]
    jobs: list[SweepJob]
    foundation_forwards: int | None = Field(
        description="Images that the foundation was shown by the jobs that are done; null: none is."
    )
    result: SweepResult
