"""Steps of a job's life, each a transaction of its own, and what is there afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import delete, inspect, select, update

from app.db import Database, now
from app.jobs import ledger, moves
from app.jobs import log as logbook
from app.jobs.claims import Checkpoint, CheckpointFile, Claim, Swept
from app.models import Dataset, Event, Job, Outbox, Worker
from tdmr.errors import Failure
from tests.support import make_dataset

Given = TypeVar("Given")

LEASE = 60.0
FINAL = Failure(code="dataset", user_error=True, detail="One class only.")
BROKEN = Failure(code="internal", user_error=False, detail="A bug.")
PASSING = Failure(code="process_died", user_error=False, detail="Killed.", retryable=True)
DAMAGED = Failure(code="checkpoint", user_error=False, detail="It can't be read.")
MOMENTS = ("lease_until", "run_after", "claimed_at", "heartbeat_at")


def submit(database: Database, count: int = 1, **given: Any) -> list[str]:
    """Queue jobs; `given` goes to `moves.submit`."""
    options = {"owner": "ana", "kind": "distil", "spec": {}, "max_attempts": 3, "ring": False}
    options |= {"dataset_id": given.pop("dataset_id", None) or make_dataset(database), **given}
    ids = []
    for _ in range(count):
        with database.write() as session:
            ids.append(moves.submit(session, **options).id)
        time.sleep(0.002)  # SQLite's clock counts milliseconds: so each is older than the next
    return ids


def claim_or_none(
    database: Database, worker: str = "w1", lease: float = LEASE, **given: Any
) -> Claim | None:
    """Take the next job, if there is one."""
    with database.write() as session:
        return moves.claim(session, worker=worker, lease_seconds=lease, **given)


def claim(database: Database, worker: str = "w1", lease: float = LEASE, **given: Any) -> Claim:
    """Take the next job."""
    found = claim_or_none(database, worker, lease, **given)
    assert found is not None
    return found


def claimed(database: Database, **given: Any) -> Claim:
    """A new job, taken."""
    submit(database, **given)
    return claim(database)


def do(database: Database, call: Callable[..., Given], claimant: Claim, *more: Any) -> Given:
    """One call of the ledger's for a claim."""
    with database.write() as session:
        return call(session, claimant, *more)


def beat(database: Database, claimant: Claim, **more: Any) -> Any:
    """A heartbeat's answer."""
    with database.write() as session:
        return ledger.beat(session, claimant, lease_seconds=LEASE, **more)


def ask(database: Database, call: Callable[..., Job], job_id: str, **more: Any) -> str:
    """One request of a user's for a job; gives the state that it has then."""
    with database.write() as session:
        return call(session, session.get_one(Job, job_id), **more).state


def sweep(database: Database, **more: Any) -> list[Swept]:
    """One round of sweeping."""
    with database.write() as session:
        return ledger.sweep(session, **more)


def job(database: Database, job_id: str) -> Job:
    """The job's row."""
    with database.read() as session:
        return session.get_one(Job, job_id)


def package_of(database: Database, job_id: str) -> Job | None:
    """The job that packages what `job_id` has trained."""
    with database.read() as session:
        return session.scalars(select(Job).where(Job.parent_id == job_id)).one_or_none()


def events(database: Database, job_id: str) -> list[Event]:
    """The job's log."""
    with database.read() as session:
        return logbook.read(session, job_id, 0, 1000)


def log(database: Database, job_id: str) -> list[str]:
    """The types of the entries in the job's log."""
    return [event.type for event in events(database, job_id)]


def bells(database: Database) -> list[tuple[str, str]]:
    """The bells that are owed: topic and job."""
    with database.read() as session:
        rows = session.execute(select(Outbox.topic, Outbox.subject_id).order_by(Outbox.id))
        return [(row.topic, row.subject_id) for row in rows]


def everything(database: Database) -> list[Any]:
    """Every row of the tables that a job's end may touch."""
    with database.read() as session:
        return [
            [{c.key: getattr(row, c.key) for c in inspect(table).columns} for row in rows]
            for table in (Job, Event, Outbox, Dataset)
            for rows in [session.scalars(select(table).order_by(*inspect(table).primary_key))]
        ]


def clear(database: Database) -> None:
    """Forget every job and worker."""
    with database.write() as session:
        session.execute(update(Job).values(parent_id=None, retry_of=None))
        for table in (Outbox, Event, Job, Worker):
            session.execute(delete(table))


def expire(database: Database, job_id: str) -> None:
    """Let the lease be over, as if time had passed."""
    _set(database, job_id, "lease_until", -1)


def make_due(database: Database, job_id: str) -> None:
    """Let the back-off be over, as if time had passed."""
    _set(database, job_id, "run_after", -1)


def put_off(database: Database, job_id: str) -> None:
    """Let the job wait for so long that no test sees the end of it."""
    _set(database, job_id, "run_after", 3600)


def _set(database: Database, job_id: str, name: str, seconds: float) -> None:
    with database.write() as session:
        moment = now(session) + timedelta(seconds=seconds)
        session.execute(update(Job).where(Job.id == job_id).values({name: moment}))


def pass_time(database: Database, seconds: float) -> None:
    """Let every moment that something is measured from be so much longer ago."""
    ago = timedelta(seconds=seconds)
    with database.write() as session:
        for row in session.scalars(select(Job)):
            for name in MOMENTS:
                if (moment := getattr(row, name)) is not None:
                    setattr(row, name, moment - ago)
        for worker in session.scalars(select(Worker)):
            worker.seen_at -= ago


def die(database: Database, claimant: Claim) -> Swept:
    """The worker goes silent, and its job is swept and due again."""
    expire(database, claimant.job_id)
    (swept,) = sweep(database)
    make_due(database, claimant.job_id)
    return swept


def checkpoint(step: int, *stages: str) -> Checkpoint:
    """A checkpoint at `step` of the last of `stages`, with a file for each of them."""
    names = stages or ("reprogram",)
    files = {
        name: CheckpointFile(name=f"{name}.bin", key=f"k/{name}", bytes=1, sha256="0" * 64)
        for name in names
    }
    return Checkpoint(stage=names[-1], step=step, files=files)


def student(step: int = 5) -> Checkpoint:
    """A checkpoint that a student can be made of."""
    return checkpoint(step, "reprogram", "distil")


def save(database: Database, claimant: Claim, state: Checkpoint) -> None:
    """Point to a checkpoint."""
    do(database, ledger.save_checkpoint, claimant, state)
