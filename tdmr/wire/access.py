"""Access keys, quotas, and the log of who did what."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tdmr.wire.base import Moment, Out


class ApiKeyOut(Out):
    """An access key, without the key itself."""

    id: str
    name: str
    scopes: list[str]
    created_at: Moment
    expires_at: Moment | None = Field(description="Null: never.")
    revoked_at: Moment | None
    last_used_at: Moment | None = Field(description="To about a minute.")
    replaced_by: str | None = Field(description="The key that it was rotated to.")


class ApiKeyMade(ApiKeyOut):
    """A new access key, this once with the key itself."""

    token: str = Field(description="Keep it now: it can't be had again.")


class AuditOut(Out):
    """One thing that was done with one of your keys."""

    id: str
    at: Moment
    key_id: str | None = Field(description="Null: the service's operator did it, by command.")
    action: str = Field(description="What was asked for, such as `create_job`.")
    subject_type: str | None
    subject_id: str | None = Field(description="What it was done to.")
    request_id: str | None
    address: str | None = Field(description="Where the request came from.")
    details: dict[str, Any] | None


class QuotaOut(Out):
    """A limit, and what of it is used."""

    limit: float | None = Field(description="Null: none.")
    used: float


class QuotasOut(Out):
    """What you may have, and what you have."""

    waiting_jobs: QuotaOut = Field(description="Queued or paused.")
    stored_bytes: QuotaOut = Field(description="Uploads, own models, and the students' files.")
    own_models: QuotaOut = Field(description="Foundations that you have uploaded.")
    device_hours: QuotaOut = Field(
        description="Of jobs that haven't ended, or have in the last 30 days."
    )
