"""Jobs and their logs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tdmr.config import Baseline, DistillOptions, Strict
from tdmr.errors import Failure
from tdmr.jobdir import Stage
from tdmr.wire.base import Moment, Out
from tdmr.wire.plans import JobEstimate

Status = Literal[
    "queued", "running", "pausing", "paused", "packaging", "succeeded", "failed", "cancelled"
]
WaitingReason = Literal["next", "behind_others", "backing_off", "no_worker", "sweep"]


class Budget(Strict):
    """What a job may use up at most."""

    max_seconds: float = Field(
        gt=0,
        le=31_536_000,
        description="Of work. Then the job stops, and the student so far is packaged.",
    )


class CheckpointOut(Out):
    """What a job would go on from."""

    stage: str
    step: int


class JobOut(Out):
    """A job: what was asked for, how far it is, and how it ended."""

    id: str
    dataset_id: str
    status: Status
    foundation: str
    student: str
    options: DistillOptions
    baselines: list[Baseline]
    metadata: dict[str, str]
    stage: Stage | None
    step: int | None
    steps: int | None
    losses: dict[str, float]
    measures: dict[str, float] = Field(
        {}, description="`accuracy` on the last batch, and `learning_rate`, while a student trains."
    )
    eta_seconds: float | None = Field(description="Until the end of this stage.")
    queue: str
    queue_position: int | None = Field(description="1 is next, among jobs of the same queue.")
    waiting_reason: WaitingReason | None = Field(description="What a queued job waits for.")
    priority: int
    budget: Budget | None
    spent_seconds: float = Field(description="Of work, in all attempts together.")
    checkpoint: CheckpointOut | None
    attempt: int
    max_attempts: int
    failure: Failure | None
    student_id: str | None
    partial: bool | None = Field(description="Whether the student's training ended early.")
    retry_of: str | None
    sweep_id: str | None = Field(None, description="The sweep that it was ordered with.")
    estimate: JobEstimate | None = Field(
        None, description="Made when it was ordered; null: it wasn't."
    )
    created_at: Moment
    started_at: Moment | None
    ended_at: Moment | None
    cancel_requested_at: Moment | None
    pause_requested_at: Moment | None


class EventOut(Out):
    """One entry of a job's log; `seq` counts from 1 without a gap."""

    seq: int
    at: Moment
    type: str
    data: dict[str, Any]
