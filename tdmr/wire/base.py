"""What every answer shares."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, PlainSerializer

Row = TypeVar("Row")


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[AwareDatetime, PlainSerializer(_rfc3339, return_type=str)]


class Out(BaseModel):
    """Base of every answer. A newer server may say more than an older client knows of."""

    model_config = ConfigDict(extra="ignore")


class Page(Out, Generic[Row]):
    """A part of a longer list."""

    data: list[Row]
    has_more: bool
    next_cursor: str | None
