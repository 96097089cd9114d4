"""Estimates and what they rest on, sweeps, and how much memory workers have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; older jobs have no estimate, and belong to no sweep."""
    op.create_table(
        "throughputs",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("device", sa.String(length=40), nullable=False),
        sa.Column("stage", sa.String(length=40), nullable=False),
        sa.Column("model", sa.String(length=300), nullable=False),
        sa.Column("side", sa.Integer(), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("entry_bytes", sa.BigInteger(), nullable=True),
        sa.Column("views_key", sa.String(length=64), nullable=True),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_throughputs")),
    )
    op.create_index(op.f("ix_throughputs_job_id"), "throughputs", ["job_id"])
    op.create_index(op.f("ix_throughputs_views_key"), "throughputs", ["views_key"])
    op.create_index("ix_throughputs_stage_measured_at", "throughputs", ["stage", "measured_at"])
    op.create_index(
        "ix_throughputs_stage_model_measured_at", "throughputs", ["stage", "model", "measured_at"]
    )
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("owner", sa.String(length=100), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("foundation", sa.String(length=300), nullable=False),
        sa.Column("students", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("baselines", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_sweeps_dataset_id_datasets")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweeps")),
    )
    op.create_index("ix_sweeps_owner_id", "sweeps", ["owner", "id"])
    op.create_index(op.f("ix_sweeps_dataset_id"), "sweeps", ["dataset_id"])
    op.add_column("jobs", sa.Column("sweep_id", sa.String(length=40), nullable=True))
    op.add_column("jobs", sa.Column("waits_for", sa.String(length=40), nullable=True))
    op.add_column("jobs", sa.Column("estimate", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("jobs", sa.Column("estimate_error", sa.Double(), nullable=True))
    op.create_index(op.f("ix_jobs_sweep_id"), "jobs", ["sweep_id"])
    op.create_index(op.f("ix_jobs_waits_for"), "jobs", ["waits_for"])
    op.add_column("workers", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Forget them. The jobs of a sweep that wait become ordinary ones, due at once."""
    op.drop_table("throughputs")
    op.drop_table("sweeps")
    op.drop_index(op.f("ix_jobs_waits_for"), "jobs")
    op.drop_index(op.f("ix_jobs_sweep_id"), "jobs")
    with op.batch_alter_table("jobs") as table:
        for name in ("estimate_error", "estimate", "waits_for", "sweep_id"):
            table.drop_column(name)
    with op.batch_alter_table("workers") as table:
        table.drop_column("memory_bytes")
