"""What a worker holds while it runs a job, and what the ledger answers it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from app.jobs.states import State
from app.models import Json
from tdmr.errors import Failure

STUDENT_STAGE = "distil"  # the stage whose checkpoint holds a student


class LeaseLostError(Exception):
    """This attempt no longer holds its job: it must stop, and may write nothing."""


@dataclass(frozen=True)
class Claim:
    """A claimed job; `attempt` and `worker` are the fence."""

    job_id: str
    kind: str
    attempt: int
    owner: str
    dataset_id: str | None
    model_id: str | None
    parent_id: str | None
    spec: Json
    checkpoint: Json | None
    worker: str
    request_id: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True)
class Orders:
    """What a running attempt is to do, as its heartbeat is answered."""

    cancel: bool = False
    pause: bool = False
    budget_spent: bool = False


@dataclass(frozen=True)
class Swept:
    """A job whose worker went silent, and where it stands now."""

    job_id: str
    kind: str
    attempt: int
    dataset_id: str | None
    model_id: str | None
    state: State
    failure: Failure | None


class CheckpointFile(BaseModel):
    """One stage's state, in storage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    key: str
    bytes: int
    sha256: str


class Checkpoint(BaseModel):
    """What the next attempt goes on from: the files by stage, and where the latest one stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    step: int
    files: dict[str, CheckpointFile]

    @property
    def has_student(self) -> bool:
        """Whether a student can be made of it, unfinished as it may be."""
        return STUDENT_STAGE in self.files
