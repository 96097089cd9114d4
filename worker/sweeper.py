"""Takes back the jobs of workers that went silent, and removes what their attempts left."""

from __future__ import annotations

import shutil

import structlog

from app.datasets import service as datasets
from app.db import Database
from app.foundations import service as foundations
from app.jobs import fleet, ledger
from app.jobs.claims import Swept
from app.jobs.states import ENDED, HELD
from app.models import Job
from app.settings import Settings
from app.storage import Storage
from worker.checks import dataset_keys
from worker.kinds import student_id, trained_prefix
from worker.pipeline import CANCELLED, job_dirs

log = structlog.get_logger(__name__)


def sweep(database: Database, storage: Storage, settings: Settings) -> list[Swept]:
    """One round. Any number of workers may do it at once."""
    unwanted: list[str | None] = []
    with database.write() as session:
        fleet.forget(session, settings.worker_patience)
        swept = ledger.sweep(session, ring=settings.broker_url is not None)
        for job in swept:
            if job.state not in ENDED:
                continue
            failure = job.failure or CANCELLED
            if job.kind == "ingest":
                assert job.dataset_id is not None
                unwanted.append(datasets.settle_failed(session, job.dataset_id, failure))
            if job.kind == "model":
                assert job.model_id is not None
                unwanted.append(foundations.settle_failed(session, job.model_id, failure))
    for job in swept:
        log.warning("swept", job_id=job.job_id, attempt=job.attempt, state=job.state)
        _remove_stored(storage, job)
    for key in unwanted:
        if key is not None:
            storage.delete(key)
    remove_leftovers(database, settings)
    return swept


def remove_leftovers(database: Database, settings: Settings) -> None:
    """Delete this machine's job directories whose attempt isn't the one that runs."""
    folder = job_dirs(settings)
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        job_id, _, attempt = path.name.rpartition("-")
        with database.read() as session:
            job = session.get(Job, job_id)
        if job is None or job.state not in HELD or str(job.attempt) != attempt:
            shutil.rmtree(path, ignore_errors=True)


def _remove_stored(storage: Storage, job: Swept) -> None:
    """What the dead attempt may have stored: it committed nothing, so no row speaks of it."""
    checked = dataset_keys(job.dataset_id, job.attempt) if job.dataset_id is not None else {}
    places = {
        "ingest": list(checked.values()),
        "model": [],  # the weights aren't an attempt's
        "distil": [trained_prefix(job.job_id, job.attempt)],
        "package": [f"students/{student_id(job.job_id, job.attempt)}"],
    }
    for place in places[job.kind]:
        storage.delete(place)
