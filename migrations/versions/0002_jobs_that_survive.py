"""Checkpoints, pause, budgets, queues and packaging of jobs; the workers' own table."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KINDS = ("ingest", "distil"), ("ingest", "distil", "package")
STATES = (
    ("queued", "running", "succeeded", "failed", "cancelled"),
    (
        *("queued", "running", "pausing", "paused", "packaging"),
        *("succeeded", "failed", "cancelled"),
    ),
)


def columns() -> list[sa.Column[Any]]:
    """The new columns of a job; rows of the first version get what no option gives."""
    return [
        sa.Column("parent_id", sa.String(length=40), nullable=True),
        sa.Column("retry_of", sa.String(length=40), nullable=True),
        sa.Column("queue", sa.String(length=40), nullable=False, server_default="default"),
        sa.Column("priority", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("max_seconds", sa.Double(), nullable=True),
        sa.Column("strikes", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pause_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("spent_seconds", sa.Double(), nullable=False, server_default="0"),
        sa.Column("checkpoint", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("furthest", sa.JSON(none_as_null=True), nullable=True),
    ]


def upgrade() -> None:
    """Add the columns, and let the checks know the new kinds and states."""
    with op.batch_alter_table("jobs") as batch:
        for added in columns():
            batch.add_column(added)
        _check(batch, KINDS[1], STATES[1])
        batch.create_unique_constraint(op.f("uq_jobs_parent_id"), ["parent_id"])
        for column in ("parent_id", "retry_of"):
            batch.create_foreign_key(op.f(f"fk_jobs_{column}_jobs"), "jobs", [column], ["id"])
    _without_defaults("jobs", ("queue", "priority", "strikes", "spent_seconds"))
    # When a running attempt was claimed isn't known: its seconds count from its last heartbeat.
    op.execute("UPDATE jobs SET claimed_at = heartbeat_at WHERE state = 'running'")
    with op.batch_alter_table("students") as batch:
        batch.add_column(
            sa.Column("partial", sa.Boolean(), nullable=False, server_default=sa.false())
        )
    _without_defaults("students", ("partial",))
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("host", sa.String(length=100), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(length=40), nullable=False),
        sa.Column("queues", sa.JSON(), nullable=False),
        sa.Column("kinds", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    with op.batch_alter_table("outbox") as batch:
        batch.alter_column("topic", type_=sa.String(length=100))
    op.execute(
        "UPDATE outbox SET topic = 'tdmr.default.' || jobs.kind "
        "FROM jobs WHERE jobs.id = outbox.subject_id"
    )


def downgrade() -> None:
    """Back to the first version; refused by the database while a job is in a new state."""
    op.execute("UPDATE outbox SET topic = 'ring'")
    with op.batch_alter_table("outbox") as batch:
        batch.alter_column("topic", type_=sa.String(length=40))
    op.drop_table("workers")
    with op.batch_alter_table("students") as batch:
        batch.drop_column("partial")
    with op.batch_alter_table("jobs") as batch:
        for column in ("parent_id", "retry_of"):
            batch.drop_constraint(op.f(f"fk_jobs_{column}_jobs"), type_="foreignkey")
        batch.drop_constraint(op.f("uq_jobs_parent_id"), type_="unique")
        _check(batch, KINDS[0], STATES[0])
        for added in columns():
            batch.drop_column(added.name)


def _check(batch: BatchOperations, kinds: tuple[str, ...], states: tuple[str, ...]) -> None:
    for name, allowed in (("kind", kinds), ("state", states)):
        batch.drop_constraint(op.f(f"ck_jobs_{name}"), type_="check")
        listed = ", ".join(f"'{value}'" for value in allowed)
        batch.create_check_constraint(op.f(f"ck_jobs_{name}"), f"{name} IN ({listed})")


def _without_defaults(table: str, columns: tuple[str, ...]) -> None:
    with op.batch_alter_table(table) as batch:
        for name in columns:
            batch.alter_column(name, server_default=None)
