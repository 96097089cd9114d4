"""The server's settings, from the environment (`TDMR_*`); the defaults are the embedded service."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated

import limits
from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEFAULT_QUEUE = "default"


def _rate(value: object) -> object:
    """A rate as `limits` writes it, such as 600/minute; empty or 0 is no limit."""
    if value in ("", "0", 0, None):
        return None
    limits.parse(str(value))  # raises ValueError
    return value


Rate = Annotated[str | None, BeforeValidator(_rate)]
Age = Annotated[float, Field(ge=0, le=3_153_600_000)]  # seconds, up to a century
QueueName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]


class Settings(BaseSettings):
    """Everything an operator can set."""

    model_config = SettingsConfigDict(env_prefix="TDMR_", extra="ignore")

    data_dir: Path = Field(Path("var"), description="Files, and the SQLite database.")
    database_url: str | None = Field(None, description="Null: SQLite in data_dir.")
    broker_url: str | None = Field(None, description="Redis for Celery; null: workers only poll.")

    lease_seconds: float = Field(60.0, gt=0)
    heartbeat_seconds: float = Field(10.0, gt=0)
    poll_seconds: float = Field(1.0, gt=0)
    grace_seconds: float = Field(
        10.0, ge=0, description="What a job's process gets to save its state when it has to stop."
    )
    checkpoint_seconds: float = Field(60.0, gt=0, description="Between two checkpoints of a job.")
    collect_seconds: float = Field(
        600.0, gt=0, description="Between two searches for stored files that nothing speaks of."
    )
    max_attempts: int = Field(
        3, ge=1, description="Bad ends in a row, without a new checkpoint, that end a job."
    )
    queues: Annotated[tuple[QueueName, ...], NoDecode] = Field(
        (DEFAULT_QUEUE,),
        min_length=1,
        description="The queues that a job may be put into, with commas between them.",
    )

    deleted_grace_seconds: Age = Field(
        604_800.0, description="In which what was deleted can be restored; 0: freed at once."
    )
    retain_events_seconds: Age | None = Field(
        None, description="Logs of jobs that have ended; null: for ever, as below."
    )
    retain_checkpoints_seconds: Age | None = Field(
        None, description="Of jobs that have ended: a retry goes on from them."
    )
    retain_invalid_seconds: Age | None = Field(
        None, description="Datasets and models that didn't pass their check."
    )
    retain_audit_seconds: Age | None = Field(None, description="Rows of the audit log.")

    max_upload_bytes: int = Field(20 * 2**30, ge=1)
    max_model_bytes: int = Field(8 * 2**30, ge=1, description="Of an uploaded foundation.")
    max_open_uploads: int = Field(20, ge=1, description="Resumable uploads that an owner has open.")
    upload_expire_seconds: float = Field(
        86_400.0, gt=0, description="Since the last byte; then an unfinished upload is removed."
    )
    max_body_bytes: int = Field(2**20, ge=1, description="Cap of a JSON body.")
    max_streams: int = Field(1000, ge=0, description="Open streams of jobs' logs.")
    max_entries: int = Field(1_000_000, ge=1, description="Files in one archive.")
    max_unpacked_bytes: int = Field(50 * 2**30, ge=1)
    max_image_bytes: int = Field(64 * 2**20, ge=1)
    max_image_pixels: int = Field(100_000_000, ge=1)

    max_sessions: int = Field(4, ge=1, description="Students kept loaded for predictions.")
    session_threads: int = Field(1, ge=1, description="Of each of them.")
    max_predictions: int = Field(2, ge=1, description="Requests whose images are worked on.")
    max_waiting_predictions: int = Field(
        32, ge=0, description="Further requests that send their images or wait for their turn."
    )
    prediction_wait_seconds: float = Field(5.0, gt=0, description="Longest wait for a turn.")
    prediction_seconds: float = Field(30.0, gt=0, description="Longest work on one request.")
    max_prediction_bytes: int = Field(32 * 2**20, ge=1, description="Of one request.")
    max_prediction_images: int = Field(16, ge=1, description="In one request.")
    max_prediction_image_bytes: int = Field(16 * 2**20, ge=1, description="Of one image.")
    max_prediction_pixels: int = Field(25_000_000, ge=1, description="Of one image.")

    rate_read: Rate = Field("20000/minute", description="Requests of one key that only look.")
    rate_write: Rate = Field("1200/minute", description="Requests of one key that change things.")
    rate_upload: Rate = Field("6000/minute", description="Of one key: uploads and their pieces.")
    rate_predict: Rate = Field("1200/minute", description="Of one key.")
    rate_failures: Rate = Field("300/minute", description="Invalid keys from one address.")

    quota_waiting_jobs: int | None = Field(
        1000, ge=0, description="Of one owner, queued or paused; 0: no limit, as below."
    )
    quota_stored_bytes: int | None = Field(
        500 * 2**30, ge=0, description="Of one owner: uploads, own models, and the students' files."
    )
    quota_own_models: int | None = Field(
        100, ge=0, description="Of one owner: uploaded foundations whose file is kept."
    )
    quota_device_hours: float | None = Field(
        1000.0, ge=0, allow_inf_nan=False, description="Of one owner's jobs, in 30 days."
    )

    metrics_token: SecretStr | None = Field(
        None, description="What GET /metrics is asked with; null: there is no /metrics."
    )

    otlp_endpoint: str | None = Field(
        None,
        description="Where traces are sent (OTLP over HTTP), such as http://collector:4318; null: "
        "OTEL_EXPORTER_OTLP_ENDPOINT, and without that nowhere.",
    )

    max_webhook_endpoints: int = Field(20, ge=1, description="Of one owner.")
    webhook_retention_seconds: float = Field(
        2_592_000.0, gt=0, description="After this, a delivery and its attempts are removed."
    )
    webhooks_may_reach_private_networks: bool = Field(
        False,
        description="Lets every key holder make this server send to any address, its own and its "
        "network's included, in plain http too, and read the answer. Only where all are trusted.",
    )

    @field_validator("queues", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _leases_outlast_beats(self) -> Settings:
        if self.heartbeat_seconds > self.lease_seconds / 3:
            raise ValueError("heartbeat_seconds must be at most a third of lease_seconds")
        return self

    @property
    def worker_patience(self) -> float:
        """Seconds without a word after which a worker counts as gone."""
        return self.lease_seconds

    @cached_property
    def url(self) -> str:
        """The database's address."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'tdmr.db'}"

    @cached_property
    def storage_dir(self) -> Path:
        """Where the local store keeps its files."""
        return self.data_dir.resolve() / "storage"

    @cached_property
    def work_dir(self) -> Path:
        """Where workers keep job directories and the view cache."""
        return self.data_dir.resolve() / "work"
