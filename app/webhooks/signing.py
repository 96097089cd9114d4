"""Signatures as standardwebhooks.com has them: HMAC-SHA256 of id, timestamp and body."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.models import Json

PREFIX = "whsec_"
SECRET_BYTES = 32
OVERLAP = timedelta(hours=24)  # how long a secret signs on after it was replaced
MAX_SECRETS = 4


class Secret(BaseModel):
    """What one signature is made with, until `until`; None: until it is replaced."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    secret: str = Field(repr=False)
    until: AwareDatetime | None = None


def new_secret() -> str:
    """256 random bits, as the standard writes them."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def rotated(rows: Iterable[Json], secret: str, moment: datetime) -> list[Json]:
    """The rows once `secret` has come: the one before it signs for a day more.

    Of secrets that are replaced faster than they expire, the oldest fall out.
    """
    kept = [
        each if each.until else each.model_copy(update={"until": moment + OVERLAP})
        for each in live(rows, moment)
    ]
    return [each.model_dump(mode="json") for each in [Secret(secret=secret), *kept][:MAX_SECRETS]]


def live(rows: Iterable[Json], moment: datetime) -> list[Secret]:
    """The secrets that sign at `moment`, newest first."""
    found = [Secret.model_validate(row) for row in rows]
    return [each for each in found if each.until is None or each.until > moment]


def headers(message_id: str, moment: datetime, body: str, signing: Iterable[Secret]) -> Json:
    """The three headers of an attempt at `moment`: one signature for each secret."""
    timestamp = str(int(moment.timestamp()))
    content = f"{message_id}.{timestamp}.{body}".encode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(_signature(each.secret, content) for each in signing),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
