"""Every table. The `jobs` table is the ledger; `app.jobs.moves` alone writes `Job.state`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, UtcDateTime

Json = dict[str, Any]
_TRAININGS = text("state = 'queued' AND kind = 'distil' AND waits_for IS NULL")
_SHORT = text("state = 'queued' AND kind <> 'distil'")
NullableJson = JSON(none_as_null=True)  # None is SQL's NULL, not the JSON text `null`


class Deletable:
    """Something of an owner's that can be deleted (`app.deletion`).

    Until `kept_until` it can be restored. Then its content is freed, and `kept_until` is null: what
    stays of the row is what other rows refer to.
    """

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(100))
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    kept_until: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)


class ApiKey(Base):
    """An access key: only its SHA-256 is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("ix_api_keys_owner_id", "owner", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(100))
    name: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # to the minute
    replaced_by: Mapped[str | None] = mapped_column(String(40))  # the key that it was rotated to


class BrowserSession(Base):
    """A browser in which somebody has signed in."""

    __tablename__ = "browser_sessions"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)  # of the cookie's value
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class Dataset(Deletable, Base):
    """An uploaded archive and what became of it: `processing`, then `ready` or `invalid`."""

    __tablename__ = "datasets"
    __table_args__ = (
        CheckConstraint("status IN ('processing', 'ready', 'invalid')", name="status"),
        Index("ix_datasets_owner_id", "owner", "id"),
    )

    name: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(20))
    upload_key: Mapped[str | None] = mapped_column(String(300))  # None once the upload is settled
    upload_bytes: Mapped[int] = mapped_column(BigInteger)
    upload_sha256: Mapped[str] = mapped_column(String(64))
    version: Mapped[str | None] = mapped_column(String(64))  # content hash; set when ready
    file_key: Mapped[str | None] = mapped_column(String(300))  # the canonical archive; when ready
    file_sha256: Mapped[str | None] = mapped_column(String(64))  # None: made before it was counted
    gallery_key: Mapped[str | None] = mapped_column(String(300))  # app.datasets.gallery
    classes: Mapped[list[str] | None] = mapped_column(NullableJson)
    splits: Mapped[Json | None] = mapped_column(NullableJson)  # {split: {class: images}}
    findings: Mapped[list[Json]] = mapped_column(JSON)
    audit: Mapped[Json | None] = mapped_column(NullableJson)  # tdmr.audit, by which job
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    settled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Model(Deletable, Base):
    """Weights of an owner's own, for a foundation: `processing`, then `ready` or `invalid`."""

    __tablename__ = "models"
    __table_args__ = (
        CheckConstraint("status IN ('processing', 'ready', 'invalid')", name="status"),
        Index("ix_models_owner_id", "owner", "id"),
    )

    name: Mapped[str] = mapped_column(String(200))
    architecture: Mapped[str] = mapped_column(String(200))  # timm's, with a tag or none
    licence: Mapped[str | None] = mapped_column(String(100))  # None: not stated
    status: Mapped[str] = mapped_column(String(20))
    file_key: Mapped[str | None] = mapped_column(String(300))  # None once the file is gone
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))  # of the file
    params: Mapped[int | None] = mapped_column(BigInteger)  # without a classifier; when ready
    input_size: Mapped[int | None]  # side in pixels; when ready
    fingerprint: Mapped[str | None] = mapped_column(String(64))  # of the weights; when ready
    findings: Mapped[list[Json]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    settled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Upload(Base):
    """A resumable upload: what is to come, what is durable already, and the dataset it became."""

    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint("received_bytes BETWEEN 0 AND length_bytes", name="received_bytes"),
        Index("ix_uploads_owner_expires_at", "owner", "expires_at"),
        Index("ix_uploads_owner_idempotency_key", "owner", "idempotency_key", unique=True),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(100))
    name: Mapped[str] = mapped_column(String(200))  # of the dataset
    user_metadata: Mapped[str | None] = mapped_column("metadata", Text)  # the header as it came
    length_bytes: Mapped[int] = mapped_column(BigInteger)
    received_bytes: Mapped[int] = mapped_column(BigInteger)
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    request_sha256: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # None once it's finished
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"), index=True)


class Job(Deletable, Base):
    """One row of the ledger: anything that takes time.

    `attempt` is the fencing token: each claim raises it, and every later write names it.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("kind IN ('ingest', 'distil', 'package', 'model')", name="kind"),
        CheckConstraint("dataset_id IS NOT NULL OR kind = 'model'", name="dataset_id"),
        CheckConstraint(
            "state IN ('queued', 'running', 'pausing', 'paused', 'packaging', "
            "'succeeded', 'failed', 'cancelled')",
            name="state",
        ),
        UniqueConstraint("owner", "idempotency_key"),
        UniqueConstraint("parent_id"),
        Index("ix_jobs_owner_kind_id", "owner", "kind", "id"),
        Index("ix_jobs_state_run_after", "state", "run_after"),
        Index("ix_jobs_owner_kind_state_id", "owner", "kind", "state", "id"),
    )

    kind: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20))
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"), index=True)
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"), index=True)
    spec: Mapped[Json] = mapped_column(JSON)  # tdmr.config.JobSpec for a distillation
    # `metadata` is the user's own; SQLAlchemy keeps that attribute name for itself.
    user_metadata: Mapped[Json] = mapped_column("metadata", JSON)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))  # whose student to package
    retry_of: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    sweep_id: Mapped[str | None] = mapped_column(String(40), index=True)  # app.plans.tables.Sweep
    waits_for: Mapped[str | None] = mapped_column(String(40), index=True)  # the sweep's first job

    queue: Mapped[str] = mapped_column(String(40))
    priority: Mapped[int]  # among the owner's own jobs; the highest comes first
    devices: Mapped[int] = mapped_column(default=1, server_default="1")  # that it trains on at once
    max_seconds: Mapped[float | None] = mapped_column(Double)  # of work, over all attempts

    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    request_sha256: Mapped[str | None] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(64))  # of the request that ordered it
    traceparent: Mapped[str | None] = mapped_column(String(60))  # of W3C: tdmr.spans

    attempt: Mapped[int] = mapped_column(default=0)
    strikes: Mapped[int] = mapped_column(default=0)  # bad ends since it last got further than ever
    max_attempts: Mapped[int]  # so many strikes end it
    run_after: Mapped[datetime] = mapped_column(UtcDateTime)
    claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    heartbeat_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    cancel_requested_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    pause_requested_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    spent_seconds: Mapped[float] = mapped_column(Double, default=0.0)  # of earlier attempts

    checkpoint: Mapped[Json | None] = mapped_column(NullableJson)  # app.jobs.claims.Checkpoint
    furthest: Mapped[Json | None] = mapped_column(NullableJson)  # {stage: step} of all attempts
    progress: Mapped[Json | None] = mapped_column(NullableJson)  # tdmr.jobdir.ProgressLine
    failure: Mapped[Json | None] = mapped_column(NullableJson)  # tdmr.errors.Failure
    estimate: Mapped[Json | None] = mapped_column(NullableJson)  # tdmr.wire.plans.JobEstimate
    estimate_error: Mapped[float | None] = mapped_column(Double)  # of it, relative, once trained
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


# Those who wait, as app.jobs.queue walks along them.
Index(
    "ix_jobs_waiting_trainings",
    *(Job.queue, Job.owner, Job.priority.desc(), Job.run_after, Job.id),
    postgresql_where=_TRAININGS,
    sqlite_where=_TRAININGS,
)
Index(
    "ix_jobs_waiting_short",
    *(Job.queue, Job.run_after, Job.id),
    postgresql_where=_SHORT,
    sqlite_where=_SHORT,
)


class Worker(Base):
    """A worker process that has been heard of lately, and what it takes."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)  # as in `Job.lease_owner`
    host: Mapped[str] = mapped_column(String(100))
    pid: Mapped[int]
    device: Mapped[str] = mapped_column(String(40))
    devices: Mapped[int] = mapped_column(default=1, server_default="1")
    queues: Mapped[list[str]] = mapped_column(JSON)
    kinds: Mapped[list[str]] = mapped_column(JSON)
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of the device; None: unknown
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Event(Base):
    """One entry of a job's ordered log, written in the transaction that it speaks of."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    type: Mapped[str] = mapped_column(String(40))
    data: Mapped[Json] = mapped_column(JSON)


class Outbox(Base):
    """A message that the transaction which wrote it owes to somebody; deleted once sent."""

    __tablename__ = "outbox"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    topic: Mapped[str] = mapped_column(String(100))
    subject_id: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Latency(Base):
    """How fast single images pass through a model's ONNX file on a machine: measured once.

    `owner` is None for a model of the catalog, of ten classes, that anybody may know of; a student
    of somebody's own is theirs to know.
    """

    __tablename__ = "latencies"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # app.students.latencies.identity
    owner: Mapped[str | None] = mapped_column(String(100))
    machine: Mapped[str] = mapped_column(String(300))
    device: Mapped[str] = mapped_column(String(40))
    model: Mapped[str] = mapped_column(String(300), index=True)
    input_size: Mapped[int]  # side in pixels
    p50_ms: Mapped[float] = mapped_column(Double)
    p95_ms: Mapped[float] = mapped_column(Double)
    file_bytes: Mapped[int] = mapped_column(BigInteger)
    params: Mapped[int] = mapped_column(BigInteger)
    runtime: Mapped[str] = mapped_column(String(100))
    measured_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Student(Deletable, Base):
    """A finished student: what it is, how good it is, and where its files are."""

    __tablename__ = "students"
    __table_args__ = (Index("ix_students_owner_id", "owner", "id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    dataset_version: Mapped[str] = mapped_column(String(64))
    foundation: Mapped[str] = mapped_column(String(300))
    architecture: Mapped[str] = mapped_column(String(300))
    partial: Mapped[bool]  # training ended early: the best so far
    metrics: Mapped[Json] = mapped_column(JSON)
    files: Mapped[list[Json]] = mapped_column(JSON)  # [{name, bytes, sha256, media_type, key}]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
