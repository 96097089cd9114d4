"""The server's settings, from the environment (`TDMR_*`); the defaults are the embedded service."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything an operator can set."""

    model_config = SettingsConfigDict(env_prefix="TDMR_", extra="ignore")

    data_dir: Path = Field(Path("var"), description="Files, and the SQLite database.")
    database_url: str | None = Field(None, description="Null: SQLite in data_dir.")
    broker_url: str | None = Field(None, description="Redis for Celery; null: workers only poll.")

    lease_seconds: float = Field(60.0, gt=0)
    heartbeat_seconds: float = Field(10.0, gt=0)
    poll_seconds: float = Field(1.0, gt=0)
    max_attempts: int = Field(3, ge=1)

    max_upload_bytes: int = Field(20 * 2**30, ge=1)
    max_body_bytes: int = Field(2**20, ge=1, description="Cap of a JSON body.")
    max_entries: int = Field(1_000_000, ge=1, description="Files in one archive.")
    max_unpacked_bytes: int = Field(50 * 2**30, ge=1)
    max_image_bytes: int = Field(64 * 2**20, ge=1)
    max_image_pixels: int = Field(100_000_000, ge=1)

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
