"""The limits that one check works under: JOB_DIR/config.json of an ingest job."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class CheckOptions(BaseModel):
    """How much an upload may hold, and how much its check may use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_entries: int = Field(1_000_000, ge=1)
    max_unpacked_bytes: int = Field(50 * 2**30, ge=1)
    max_image_bytes: int = Field(64 * 2**20, ge=1)
    max_image_pixels: int = Field(100_000_000, ge=1)
    max_ratio: float = Field(200.0, gt=1, description="Unpacked bytes for each packed one.")
    memory_bytes: int | None = Field(None, description="Address space of the check; null: any.")
    cpu_seconds: int | None = Field(None, description="Processor time of the check; null: any.")
    processes: int | None = Field(None, ge=1, description="That decode; null: one for each core.")
