"""Foundations of an owner's own, and the jobs that check and name them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

KINDS = ("ingest", "distil", "package")


def upgrade() -> None:
    """Add them; no older job has one. A job that checks a model has no dataset."""
    op.create_table(
        "models",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("owner", sa.String(length=100), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("architecture", sa.String(length=200), nullable=False),
        sa.Column("licence", sa.String(length=100), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("file_key", sa.String(length=300), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("params", sa.BigInteger(), nullable=True),
        sa.Column("input_size", sa.Integer(), nullable=True),
        sa.Column("fingerprint", sa.String(length=64), nullable=True),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("kept_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('processing', 'ready', 'invalid')", name=op.f("ck_models_status")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
    )
    op.create_index("ix_models_owner_id", "models", ["owner", "id"])
    op.create_index(op.f("ix_models_kept_until"), "models", ["kept_until"])
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("model_id", sa.String(length=40), nullable=True))
        batch.alter_column("dataset_id", existing_type=sa.String(length=40), nullable=True)
        batch.create_foreign_key(op.f("fk_jobs_model_id_models"), "models", ["model_id"], ["id"])
        batch.create_check_constraint(
            op.f("ck_jobs_dataset_id"), "dataset_id IS NOT NULL OR kind = 'model'"
        )
        _check(batch, (*KINDS, "model"))
    op.create_index(op.f("ix_jobs_model_id"), "jobs", ["model_id"])


def downgrade() -> None:
    """Forget them, and the jobs that checked them. One that names one fails, as of no such name."""
    checks = "(SELECT id FROM jobs WHERE kind = 'model')"
    op.execute(f"DELETE FROM events WHERE job_id IN {checks}")  # noqa: S608 - our own words
    op.execute(f"DELETE FROM outbox WHERE subject_id IN {checks}")  # noqa: S608 - here too
    op.execute("DELETE FROM jobs WHERE kind = 'model'")
    op.drop_index(op.f("ix_jobs_model_id"), "jobs")
    with op.batch_alter_table("jobs") as batch:
        batch.drop_constraint(op.f("fk_jobs_model_id_models"), type_="foreignkey")
        batch.drop_constraint(op.f("ck_jobs_dataset_id"), type_="check")
        _check(batch, KINDS)
        batch.drop_column("model_id")
        batch.alter_column("dataset_id", existing_type=sa.String(length=40), nullable=False)
    op.drop_table("models")


def _check(batch: BatchOperations, kinds: tuple[str, ...]) -> None:
    batch.drop_constraint(op.f("ck_jobs_kind"), type_="check")
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    batch.create_check_constraint(op.f("ck_jobs_kind"), f"kind IN ({listed})")
