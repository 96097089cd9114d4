"""A database with jobs in every phase of their lives, made through the ledger."""

from __future__ import annotations

from datetime import timedelta

from app.db import Database, now
from app.jobs import ledger, moves
from app.models import Job
from app.settings import Settings
from tdmr.config import JobSpec
from tdmr.errors import Failure
from tdmr.jobdir import ProgressLine, Stage
from tests.support import make_dataset

OWNER = "owner"  # whose the first key is
LEASE = 86_400.0
PHASES = ("running", "failed", "queued")


def fill(settings: Settings, count: int) -> dict[str, list[str]]:
    """Ids of `count` jobs, by phase: a third each."""
    database = Database(settings.url)
    dataset = make_dataset(database, owner=OWNER)
    spec = JobSpec(foundation="letters_vit", student="test_resnet").model_dump(mode="json")
    found: dict[str, list[str]] = {phase: [] for phase in PHASES}
    for number in range(count):
        phase = PHASES[number % len(PHASES)]
        with database.write() as session:
            job_id = moves.submit(
                session,
                owner=OWNER,
                kind="distil",
                dataset_id=dataset,
                spec=spec,
                max_attempts=3,
                ring=False,
            ).id
            found[phase].append(job_id)
            if phase == "queued":
                # Not due: the next claim must not take it.
                session.get_one(Job, job_id).run_after = now(session) + timedelta(days=1)
                continue
            claim = moves.claim(session, worker="bench", lease_seconds=LEASE)
            assert claim is not None
            assert claim.job_id == job_id
            ledger.beat(
                session, claim, progress=line(number).model_dump(mode="json"), lease_seconds=LEASE
            )
            if phase == "failed":
                ledger.fail(session, claim, FAILURE)
    with database.write() as session:
        for job_id in found["queued"]:
            session.get_one(Job, job_id).run_after = now(session)
    database.close()
    return found


FAILURE = Failure(code="bench", user_error=True, detail="Made to be looked at.")


def line(step: int) -> ProgressLine:
    """How far a job is."""
    stage = Stage(name="distil", index=4, count=6, progress=0.5)
    losses = {"loss": 0.731, "ce": 0.42, "kd": 0.311}
    return ProgressLine(
        event="progress", stage=stage, step=step, steps=2400, losses=losses, eta_seconds=61.5
    )
