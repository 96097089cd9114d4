"""Indexes of those who wait, in the order that they are claimed in, and of an owner's by state."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TRAININGS = sa.text("state = 'queued' AND kind = 'distil' AND waits_for IS NULL")
SHORT = sa.text("state = 'queued' AND kind <> 'distil'")


def upgrade() -> None:
    """Add them: of a million jobs, that takes seconds in which none is written."""
    op.create_index(
        "ix_jobs_waiting_trainings",
        "jobs",
        ["queue", "owner", sa.text("priority DESC"), "run_after", "id"],
        postgresql_where=TRAININGS,
        sqlite_where=TRAININGS,
    )
    op.create_index(
        "ix_jobs_waiting_short",
        "jobs",
        ["queue", "run_after", "id"],
        postgresql_where=SHORT,
        sqlite_where=SHORT,
    )
    op.create_index("ix_jobs_owner_kind_state_id", "jobs", ["owner", "kind", "state", "id"])


def downgrade() -> None:
    """Remove them."""
    for name in ("owner_kind_state_id", "waiting_short", "waiting_trainings"):
        op.drop_index(f"ix_jobs_{name}", "jobs")
