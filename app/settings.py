"""The server's settings, from the environment (`TDMR_*`); the defaults are the embedded service.

Each can be a file as well, named as its variable, in the folder that `TDMR_SECRETS_DIR` names: so
passwords are kept out of environments. A variable goes before a file.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

import limits
from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

DEFAULT_QUEUE = "default"
SECRETS = "TDMR_SECRETS_DIR"


_BUCKET = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_][A-Za-z0-9._-]*)*/?$"


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
    database_password: str | None = Field(
        None, repr=False, description="Put into database_url, to be kept apart from it."
    )
    broker_url: str | None = Field(None, description="Redis for Celery; null: workers only poll.")
    broker_password: str | None = Field(None, repr=False, description="Put into broker_url.")

    database_pool_size: int = Field(
        5, ge=1, description="Connections of one process to PostgreSQL that stay open."
    )
    database_pool_overflow: int = Field(
        10, ge=0, description="Further ones, closed once they aren't needed."
    )
    database_pool_seconds: float = Field(
        10.0,
        gt=0,
        description="Longest wait for a connection; then a request is answered with 503.",
    )
    database_recycle_seconds: float = Field(
        1800.0, gt=0, description="After this, a connection is replaced by a new one."
    )
    database_statement_seconds: float = Field(
        60.0, ge=0, description="Longest work of PostgreSQL on one statement; 0: no limit."
    )

    storage_url: Annotated[str, StringConstraints(pattern=_BUCKET)] | None = Field(
        None, description="s3://bucket/prefix for stored files; null: a folder in data_dir."
    )
    storage_endpoint: str | None = Field(None, description="The store's address; null: Amazon's.")
    storage_public_endpoint: str | None = Field(
        None, description="The store's address in signed downloads, where clients know another."
    )
    storage_region: str = "us-east-1"
    storage_path_style: bool = Field(
        True, description="endpoint/bucket/key; false: the bucket in the host's name."
    )
    storage_allow_http: bool = Field(False, description="Let the endpoint be plain http.")
    storage_access_key: SecretStr | None = Field(
        None, description="Null: what AWS_* and the machine's role say, unless there is a file."
    )
    storage_secret_key: SecretStr | None = None
    storage_access_key_file: Path | None = Field(
        None, description="A file with the key, read again every quarter of an hour."
    )
    storage_secret_key_file: Path | None = None
    storage_timeout_seconds: float = Field(30.0, gt=0, description="Of silence in one request.")
    storage_retry_seconds: float = Field(
        20.0, ge=0, description="In which a request that fails is sent again."
    )
    signed_downloads: bool = Field(
        False, description="Send clients to the store for files, instead of passing them on."
    )
    signed_seconds: float = Field(300.0, gt=0, le=604_800, description="A signed address's life.")

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

    trusted_proxies: str | None = Field(
        None,
        description="Addresses or networks, with commas between them, of the proxies whose "
        "X-Forwarded-For and X-Forwarded-Proto are believed. Null: nobody's.",
    )

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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given, then the environment, then the folder of secrets, which must be there."""
        secrets = NestedSecretsSettingsSource(
            file_secret_settings, os.environ.get(SECRETS), secrets_dir_missing="error"
        )
        return init_settings, env_settings, secrets

    @field_validator("queues", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _leases_outlast_beats(self) -> Settings:
        if self.heartbeat_seconds > self.lease_seconds / 3:
            raise ValueError("heartbeat_seconds must be at most a third of lease_seconds")
        return self

    @model_validator(mode="after")
    def _urls_have_their_passwords(self) -> Settings:
        self.database_url = _with_password(self.database_url, self.database_password)
        self.broker_url = _with_password(self.broker_url, self.broker_password)
        return self

    @model_validator(mode="after")
    def _store_can_be_reached(self) -> Settings:
        for name in ("storage_endpoint", "storage_public_endpoint"):
            if (getattr(self, name) or "").startswith("http://") and not self.storage_allow_http:
                raise ValueError(f"{name} is plain http: that needs storage_allow_http")
        has_key = self.storage_access_key or self.storage_access_key_file
        if (has_key is None) != ((self.storage_secret_key or self.storage_secret_key_file) is None):
            raise ValueError("the store needs both an access key and a secret key, or neither")
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


def _with_password(url: str | None, password: str | None) -> str | None:
    """The URL with a password of whatever characters."""
    if url is None or password is None:
        return url
    parts = urlsplit(url)
    account, _, host = parts.netloc.rpartition("@")
    user = account.partition(":")[0]
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}").geturl()
