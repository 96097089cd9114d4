"""Resumable uploads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add their table."""
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("owner", sa.String(length=100), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=True),
        sa.Column("length_bytes", sa.BigInteger(), nullable=False),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dataset_id", sa.String(length=40), nullable=True),
        sa.CheckConstraint(
            "received_bytes BETWEEN 0 AND length_bytes", name=op.f("ck_uploads_received_bytes")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_uploads_dataset_id_datasets")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_dataset_id"), "uploads", ["dataset_id"])
    op.create_index("ix_uploads_owner_expires_at", "uploads", ["owner", "expires_at"])


def downgrade() -> None:
    """Forget them; the datasets that they became stay."""
    op.drop_table("uploads")
