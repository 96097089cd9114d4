"""Uploads that are begun once, however often they are asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

INDEX = "ix_uploads_owner_idempotency_key"


def upgrade() -> None:
    """Add the key of the request that began an upload; those that there are came without one."""
    op.add_column("uploads", sa.Column("idempotency_key", sa.String(length=200), nullable=True))
    op.add_column("uploads", sa.Column("request_sha256", sa.String(length=64), nullable=True))
    op.create_index(INDEX, "uploads", ["owner", "idempotency_key"], unique=True)


def downgrade() -> None:
    """Forget the keys; the uploads stay."""
    op.drop_index(INDEX, "uploads")
    op.drop_column("uploads", "request_sha256")
    op.drop_column("uploads", "idempotency_key")
