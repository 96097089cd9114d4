"""What was deleted, and until when it can be restored."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = ("datasets", "jobs", "students")


def upgrade() -> None:
    """Add both columns; nothing is deleted yet."""
    for table in TABLES:
        for name in ("deleted_at", "kept_until"):
            op.add_column(table, sa.Column(name, sa.DateTime(timezone=True), nullable=True))
        op.create_index(f"ix_{table}_kept_until", table, ["kept_until"])


def downgrade() -> None:
    """Forget them: what was deleted is back, and a dataset without its files is invalid."""
    op.execute(
        "UPDATE datasets SET status = 'invalid' WHERE deleted_at IS NOT NULL AND kept_until IS NULL"
    )
    for table in TABLES:
        op.drop_index(f"ix_{table}_kept_until", table)
        with op.batch_alter_table(table) as batch:
            batch.drop_column("kept_until")
            batch.drop_column("deleted_at")
