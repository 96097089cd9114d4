"""Many submissions of one and the same job at once."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy.exc import IntegrityError

from app.db import Database
from app.jobs import service
from app.jobs.idempotency import Idempotency, earlier
from app.settings import Settings
from benchmarks.storm.arena import OWNERS
from tdmr.config import JobSpec

OWNER = OWNERS[0]  # whose the arena's dataset is


def submit(dataset_id: str, key: str, times: str) -> None:
    """Submit so many times from as many threads; print the id that each was given."""
    settings = Settings()
    database = Database(settings.url)
    with ThreadPoolExecutor(int(times)) as pool:
        made = [pool.submit(_once, database, settings, dataset_id, key) for _ in range(int(times))]
        for each in made:
            sys.stdout.write(each.result() + "\n")
    sys.stdout.flush()
    database.close()


def _once(database: Database, settings: Settings, dataset_id: str, key: str) -> str:
    """As the API does it: make the job, or find the one that an equal request made."""
    asked = Idempotency(key, "0" * 64)
    while True:
        try:
            with database.write() as session:
                found = earlier(session, OWNER, asked)
                if found is not None:
                    return found.id
                view = service.create(
                    session,
                    owner=OWNER,
                    dataset_id=dataset_id,
                    spec=JobSpec(foundation="letters_vit", student="test_resnet"),
                    terms=service.Terms(),
                    metadata={},
                    idempotency=asked,
                    settings=settings,
                )
                return view.job.id
        except IntegrityError:
            continue
