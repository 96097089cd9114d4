"""What goes in and what comes out. Models for input and for output are never the same."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)

from app.datasets.findings import Finding
from app.jobs.service import Terms
from app.settings import DEFAULT_QUEUE
from tdmr.config import Baseline, DistillOptions, JobSpec
from tdmr.errors import Failure
from tdmr.jobdir import Stage

Status = Literal[
    "queued", "running", "pausing", "paused", "packaging", "succeeded", "failed", "cancelled"
]
WaitingReason = Literal["next", "behind_others", "backing_off", "no_worker"]


def _printable(text: str) -> str:
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise ValueError("control characters aren't taken")
    return text


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


Printable = AfterValidator(_printable)
Moment = Annotated[AwareDatetime, PlainSerializer(_rfc3339, return_type=str)]
MetadataName = Annotated[str, StringConstraints(min_length=1, max_length=64), Printable]
MetadataValue = Annotated[str, StringConstraints(max_length=500), Printable]


class Budget(BaseModel):
    """What a job may use up at most."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    max_seconds: float = Field(
        gt=0,
        le=31_536_000,
        description="Of work. Then the job stops, and the student so far is packaged.",
    )


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


class RetryIn(BaseModel):
    """What to change in an order that is retried: a JSON merge patch (RFC 7396)."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"options": {"training": {"batch_size": 16}}}]},
    )

    options: dict[str, Any] = Field(default_factory=dict)
    baselines: list[Baseline] | None = None
    budget: Budget | None = None
    priority: int | None = None
    queue: str | None = None


class Out(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(extra="forbid")


class CheckOut(Out):
    """How far the check of a dataset is."""

    status: Status
    stage: Stage | None
    eta_seconds: float | None
    attempt: int


class ClassOut(Out):
    """A class and how many images it has, in all splits together."""

    name: str
    images: int


class DatasetSummary(Out):
    """A dataset, in a list."""

    id: str
    name: str
    status: Literal["processing", "ready", "invalid"]
    version: str | None = Field(description="SHA-256 of the content; null until it's ready.")
    upload_bytes: int
    upload_sha256: str
    created_at: Moment
    settled_at: Moment | None


class DatasetOut(DatasetSummary):
    """A dataset: what it holds, and everything its check found."""

    classes: list[ClassOut] | None
    splits: dict[str, dict[str, int]] | None = Field(description="Images by split and class.")
    findings: list[Finding]
    check: CheckOut | None


class AuditedImage(Out):
    """An image that an audit speaks of."""

    number: int = Field(description="In /v1/datasets/{id}/images.")
    file: str = Field(description="Its name in the upload.")
    thumbnail_url: str


class NearDuplicate(Out):
    """Two images that show the same."""

    images: list[AuditedImage]
    similarity: float = Field(description="Correlation once one is laid over the other, to 1.")


class Mislabel(Out):
    """An image that seems to be of another class."""

    image: AuditedImage
    label: str
    suggested: str
    score: float = Field(description="Probability of the suggestion, by folds without the image.")


class AuditOut(Out):
    """What a foundation's features say of a dataset: worth a look, and not always right."""

    job_id: str
    foundation: str
    counts: dict[Literal["duplicates", "leaks", "mislabels"], int]
    duplicates: list[NearDuplicate] = Field(description="Within one split; the surest first.")
    leaks: list[NearDuplicate] = Field(description="Between training and held-out images.")
    mislabels: list[Mislabel]


class ReportOut(Out):
    """What a check has found: errors first, each with what to do about it."""

    dataset_id: str
    status: Literal["processing", "ready", "invalid"]
    findings: list[Finding]
    audit: AuditOut | None = Field(description="Null until a job has shown it to a foundation.")


class ImageOut(Out):
    """One image of a dataset."""

    number: int
    split: Literal["train", "val", "test"]
    label: str
    source: str = Field(description="Its name in the upload.")
    sha256: str
    width: int
    height: int
    thumbnail_url: str


class UploadOut(Out):
    """A resumable upload: how far it is, and the dataset that it became."""

    id: str
    name: str
    offset: int = Field(description="Bytes that are durable: send on from here.")
    length: int
    created_at: Moment
    expires_at: Moment | None = Field(description="Null once it's finished.")
    dataset_id: str | None = Field(description="Null until it's finished.")


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


class FileOut(Out):
    """A file of a student."""

    name: str
    bytes: int
    sha256: str
    media_type: str
    url: str


class StudentSummary(Out):
    """A student, in a list."""

    id: str
    job_id: str
    dataset_id: str
    dataset_version: str
    foundation: str
    architecture: str
    accuracy: float | None
    interval: list[float] | None = Field(description="95 % interval of the accuracy.")
    params: int | None
    partial: bool = Field(description="Its training ended early: the best that there was.")
    created_at: Moment


class StudentOut(StudentSummary):
    """A student: how good it is, against what, and its files."""

    baselines: dict[str, Any]
    metrics: dict[str, Any]
    files: list[FileOut]
    archive_url: str


class Health(Out):
    """The process runs."""

    status: Literal["ok"] = "ok"


class Ready(Out):
    """The service can take work, and work gets done."""

    status: Literal["ready"] = "ready"
    checks: dict[str, str]
