"""Who has signed in to the dashboard, and until when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; nobody has signed in."""
    op.create_table(
        "browser_sessions",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["key_id"], ["api_keys.id"], name=op.f("fk_browser_sessions_key_id_api_keys")
        ),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_browser_sessions")),
    )
    for name in ("key_id", "expires_at"):
        op.create_index(op.f(f"ix_browser_sessions_{name}"), "browser_sessions", [name])


def downgrade() -> None:
    """Everybody signs in again."""
    op.drop_table("browser_sessions")
