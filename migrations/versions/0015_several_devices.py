"""How many devices a training wants, and a worker has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One, also of what a version without this column writes meanwhile."""
    for table in ("jobs", "workers"):
        column = sa.Column("devices", sa.Integer, nullable=False, server_default="1")
        op.add_column(table, column)


def downgrade() -> None:
    """Forget it."""
    for name in ("workers", "jobs"):
        with op.batch_alter_table(name) as table:
            table.drop_column("devices")
