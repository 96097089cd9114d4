"""Datasets, their reports and their uploads."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tdmr.jobdir import Stage
from tdmr.wire.base import Moment, Out
from tdmr.wire.jobs import Status
from tdmr.wire.plans import Severity


class Finding(BaseModel):
    """One thing about an upload: how bad, where, what, and what to do about it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    code: str
    severity: Severity
    file: str | None = None
    detail: str
    advice: str


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
