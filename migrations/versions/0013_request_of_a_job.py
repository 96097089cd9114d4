"""Which request a job belongs to, and its trace."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both; of jobs that are there nobody knows."""
    op.add_column("jobs", sa.Column("request_id", sa.String(64)))
    op.add_column("jobs", sa.Column("traceparent", sa.String(60)))


def downgrade() -> None:
    """Forget both."""
    with op.batch_alter_table("jobs") as table:
        table.drop_column("traceparent")
        table.drop_column("request_id")
