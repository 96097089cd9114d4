"""A dataset's gallery, its images in order with thumbnails, and what a foundation says of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both; datasets of before have none."""
    op.add_column("datasets", sa.Column("gallery_key", sa.String(length=300), nullable=True))
    op.add_column("datasets", sa.Column("audit", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Forget them."""
    with op.batch_alter_table("datasets") as table:
        table.drop_column("audit")
        table.drop_column("gallery_key")
