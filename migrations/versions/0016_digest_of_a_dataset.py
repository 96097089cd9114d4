"""The SHA-256 of a dataset's canonical archive, which workers fetch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it; of archives that are there nobody has counted it."""
    op.add_column("datasets", sa.Column("file_sha256", sa.String(64)))


def downgrade() -> None:
    """Forget it."""
    with op.batch_alter_table("datasets") as table:
        table.drop_column("file_sha256")
