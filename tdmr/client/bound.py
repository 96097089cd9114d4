"""Answers that remember the client that they came by, and so can be asked to do something."""

from __future__ import annotations

from typing import Any, Self

from pydantic import PrivateAttr

from tdmr.client.events import ENDED
from tdmr.client.reading import read
from tdmr.wire.base import Out
from tdmr.wire.datasets import DatasetOut
from tdmr.wire.jobs import JobOut
from tdmr.wire.models import OwnModelOut
from tdmr.wire.students import StudentOut


class Bound(Out):
    """What the server said at one moment; it doesn't change by itself."""

    _client: Any = PrivateAttr()

    @classmethod
    def of(cls, client: Any, data: Any) -> Self:
        """An answer of `client`'s. Raises pydantic.ValidationError."""
        found = read(cls, data)
        found._client = client
        return found


class BoundDataset(Bound, DatasetOut):
    """A dataset, of either client."""

    @property
    def settled(self) -> bool:
        """Whether its check is over."""
        return self.status != "processing"


class BoundModel(Bound, OwnModelOut):
    """A foundation of one's own, of either client."""

    @property
    def settled(self) -> bool:
        """Whether its check is over."""
        return self.status != "processing"


class BoundJob(Bound, JobOut):
    """A job, of either client."""

    @property
    def ended(self) -> bool:
        """Whether it succeeded, failed or was cancelled; it won't change again."""
        return self.status in ENDED

    def student_made(self) -> str:
        """The id of the student that it has made. Raises LookupError."""
        if self.student_id is None:
            raise LookupError(f"{self.id} is {self.status} and has no student.")
        return self.student_id


class BoundStudent(Bound, StudentOut):
    """A student, of either client."""
