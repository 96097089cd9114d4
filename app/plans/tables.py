"""The tables of plans: what stages took, and the sweeps."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, UtcDateTime
from app.models import Json


class Throughput(Base):
    """What one stage of one finished job took: `seconds` for so many `units`.

    Units are images for `prepare`, views for `cache` and `reprogram`, steps for trainings, and
    one for `rest`, whatever else the job did. `model` is the one that the stage runs.
    """

    __tablename__ = "throughputs"
    __table_args__ = (
        Index("ix_throughputs_stage_measured_at", "stage", "measured_at"),
        Index("ix_throughputs_stage_model_measured_at", "stage", "model", "measured_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(40), index=True)
    device: Mapped[str] = mapped_column(String(40))  # cpu or cuda
    stage: Mapped[str] = mapped_column(String(40))
    model: Mapped[str] = mapped_column(String(300))
    side: Mapped[int]  # of the model's images, in pixels
    batch_size: Mapped[int]
    units: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float] = mapped_column(Double)
    entry_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of the cache that it made
    views_key: Mapped[str | None] = mapped_column(String(64), index=True)  # app.plans.load
    measured_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Sweep(Base):
    """An order for many students of one foundation on one dataset; its jobs name it."""

    __tablename__ = "sweeps"
    __table_args__ = (Index("ix_sweeps_owner_id", "owner", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(100))
    name: Mapped[str | None] = mapped_column(String(200))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    foundation: Mapped[str] = mapped_column(String(300))
    students: Mapped[list[str]] = mapped_column(JSON)
    options: Mapped[Json] = mapped_column(JSON)
    baselines: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
