"""What the workers of a storm write down beside the ledger, so that it needn't be believed.

One JSON line for each write that the fence let pass, each lease that was committed, and each
process that was started; appended in one go, in the transaction that it speaks of or right behind.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from app.jobs import ledger, moves
from app.jobs.claims import Claim, Orders
from app.models import Job, Json

VARIABLE = "TDMR_STORM_WITNESS"


@dataclass(frozen=True)
class Line:
    """One thing that was seen.

    write   attempt `attempt` was let pass while the row stood at `row`
    lease   the attempt holds the job from `at` until `until` at least (seconds since the epoch)
    start   the attempt's process `pid` was started, at `at`
    """

    what: str
    job: str
    attempt: int
    row: int = 0
    until: float = 0.0
    pid: int = 0
    at: float = 0.0


def read(path: Path) -> list[Line]:
    """Every line, in the order in which they were written."""
    if not path.exists():
        return []
    return [Line(**json.loads(line)) for line in path.read_text().splitlines()]


def note(**line: Any) -> None:
    """Append a line: whole, whoever else does the same."""
    handle = os.open(os.environ[VARIABLE], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(handle, json.dumps(line).encode() + b"\n")
    finally:
        os.close(handle)


def started(job_id: str, attempt: int, pid: int) -> None:
    """Note the start of a job's process."""
    note(what="start", job=job_id, attempt=attempt, pid=pid, at=time.time())


def install() -> None:
    """Have this process's claims, beats and fenced writes noted."""
    claim_, fenced_, beat_ = moves.claim, moves.fenced, ledger.beat

    def claim(session: Session, *, lease_seconds: float, **given: Any) -> Claim | None:
        at = time.time()
        found = claim_(session, lease_seconds=lease_seconds, **given)
        if found is not None:
            _note_lease(session, found, at, lease_seconds)
        return found

    def fenced(session: Session, claim: Claim) -> Job:
        job = fenced_(session, claim)
        note(what="write", job=claim.job_id, attempt=claim.attempt, row=job.attempt)
        return job

    def beat(
        session: Session,
        claim: Claim,
        *,
        lease_seconds: float,
        progress: Json | None = None,
        warnings: Sequence[str] = (),
    ) -> Orders:
        at = time.time()
        orders = beat_(
            session, claim, lease_seconds=lease_seconds, progress=progress, warnings=warnings
        )
        _note_lease(session, claim, at, lease_seconds)
        return orders

    moves.claim, ledger.beat, moves.fenced = claim, beat, fenced
    vars(ledger)["fenced"] = fenced  # which it has imported by name


def _note_lease(session: Session, claim: Claim, at: float, seconds: float) -> None:
    """Once it's committed: a worker may die before that."""

    def committed(_: Session) -> None:
        note(what="lease", job=claim.job_id, attempt=claim.attempt, at=at, until=at + seconds)

    event.listen(session, "after_commit", committed, once=True)
