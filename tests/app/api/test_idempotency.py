"""Two equal requests at the same moment make one thing, whichever database decides."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from fastapi import FastAPI
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.api.idempotency import asked, once
from app.db import Database
from app.jobs import moves
from app.jobs.idempotency import earlier
from app.main import create_app
from app.models import Job
from app.settings import Settings
from tests.support import make_dataset

MANY = 8


def test_the_database_decides(any_database: Database, settings: Settings) -> None:
    url = any_database.engine.url.render_as_string(hide_password=False)
    core = create_app(Settings(data_dir=settings.data_dir, database_url=url)).state.core
    dataset_id = make_dataset(any_database)
    request = asked("key", "content")
    barrier = Barrier(MANY)

    def make(session: Session) -> str:
        return moves.submit(
            session,
            owner="ana",
            kind="distil",
            dataset_id=dataset_id,
            spec={},
            idempotency_key=request.key,
            request_sha256=request.request_sha256,
            max_attempts=1,
            ring=False,
        ).id

    def run(_: int) -> tuple[str, bool]:
        barrier.wait()
        return once(core, "ana", request, make, lambda _, job: job.id)

    with ThreadPoolExecutor(MANY) as pool:
        found = list(pool.map(run, range(MANY)))
    core.database.close()
    assert len({job_id for job_id, _ in found}) == 1
    assert sorted(replayed for _, replayed in found) == [False] + [True] * (MANY - 1)
    with any_database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1


def test_without_a_key_nothing_is_earlier(any_database: Database) -> None:
    with any_database.read() as session:
        assert earlier(session, "ana", asked(None, "content")) is None


def test_what_is_asked_is_told_apart(app: FastAPI) -> None:
    assert asked("k", "ab", "c").request_sha256 != asked("k", "a", "bc").request_sha256
    assert asked("k", "a") == asked("k", "a")
