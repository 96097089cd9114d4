"""Takes back the jobs of workers that went silent, and removes what their attempts left."""

from __future__ import annotations

import shutil

import structlog

from app.datasets import service as datasets
from app.db import Database
from app.jobs import fleet, ledger
from app.jobs.claims import Swept
from app.jobs.states import ENDED, HELD
from app.models import Job
from app.settings import Settings
from app.storage import LocalStorage
from worker.kinds import dataset_keys, student_id, trained_prefix
from worker.pipeline import CANCELLED, job_dirs

log = structlog.get_logger(__name__)


def sweep(database: Database, storage: LocalStorage, settings: Settings) -> list[Swept]:
    """One round. Any number of workers may do it at once."""
    uploads = []
    with database.write() as session:
        fleet.forget(session, settings.worker_patience)
        swept = ledger.sweep(session, ring=settings.broker_url is not None)
        for job in swept:
            if job.kind == "ingest" and job.state in ENDED:
                failure = job.failure or CANCELLED
                uploads.append(datasets.settle_failed(session, job.dataset_id, failure))
    for job in swept:
        log.warning("swept", job_id=job.job_id, attempt=job.attempt, state=job.state)
        _remove_stored(storage, job)
    for key in uploads:
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


def _remove_stored(storage: LocalStorage, job: Swept) -> None:
    """What the dead attempt may have stored: it committed nothing, so no row speaks of it."""
    places = {
        "ingest": list(dataset_keys(job.dataset_id, job.attempt).values()),
        "distil": [trained_prefix(job.job_id, job.attempt)],
        "package": [f"students/{student_id(job.job_id, job.attempt)}"],
    }
    for place in places[job.kind]:
        storage.delete(place)
