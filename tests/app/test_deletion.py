"""Deletion beside other transactions: what is looked at holds until what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from app import migrate
from app.datasets import service as datasets
from app.db import Database
from app.deletion import locked
from app.errors import (
    DatasetInUseError,
    GoneError,
    InvalidError,
    ModelInUseError,
    UnknownModelError,
)
from app.foundations import service as foundations
from app.jobs import ledger
from app.jobs import service as jobs
from app.jobs.idempotency import Idempotency
from app.jobs.service import Terms, View
from app.models import Job
from app.plans import orders
from app.plans.checks import Order
from app.settings import Settings
from tdmr.config import JobSpec
from tests.app.jobs import steps
from tests.support import make_dataset, make_model, wait_until

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = ANY(:own)"


class Race:
    """Two transactions on PostgreSQL, of which the second waits for the first."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self._watcher = create_engine(url)
        self._pool = ThreadPoolExecutor(1)

    def run(self, first: Callable[[Session], object], second: Callable[[Session], object]) -> None:
        """Commit `first` only once `second` waits for it; raise what `second` raises."""
        pids: list[int] = []
        with self.database.write() as session:
            first(session)
            session.flush()
            waiter = self._pool.submit(self._second, second, pids)
            wait_until(lambda: waiter.done() or self._waits(pids))
            assert not waiter.done(), "it didn't wait"
        waiter.result(timeout=60)

    def _second(self, second: Callable[[Session], object], pids: list[int]) -> None:
        with self.database.write() as session:
            pids.append(session.scalar(text("SELECT pg_backend_pid()")) or 0)
            second(session)

    def _waits(self, pids: list[int]) -> bool:
        with self._watcher.connect() as connection:
            return bool(connection.scalar(text(WAITING), {"own": pids}))

    def close(self) -> None:
        self._pool.shutdown()
        self._watcher.dispose()
        self.database.close()


@pytest.fixture
def race(postgres_schema: str) -> Iterator[Race]:
    migrate.upgrade(postgres_schema)
    found = Race(postgres_schema)
    yield found
    found.close()


def order(
    session: Session, dataset_id: str, settings: Settings, foundation: str = "test_vit"
) -> View:
    spec = JobSpec(foundation=foundation, student="test_resnet")
    return orders.place(
        session,
        owner="ana",
        order=Order(dataset_id=dataset_id, spec=spec, terms=Terms()),
        metadata={},
        idempotency=Idempotency(None, ""),
        settings=settings,
    )


def test_a_job_that_comes_while_its_dataset_is_deleted_is_refused(
    race: Race, settings: Settings
) -> None:
    dataset_id = make_dataset(race.database)
    with pytest.raises(InvalidError, match="You have no such dataset"):
        race.run(
            lambda session: datasets.delete(
                session, "ana", dataset_id, settings, permanently=False
            ),
            lambda session: order(session, dataset_id, settings),
        )


def test_a_dataset_isnt_deleted_while_a_job_comes(race: Race, settings: Settings) -> None:
    dataset_id = make_dataset(race.database)
    with pytest.raises(DatasetInUseError):
        race.run(
            lambda session: order(session, dataset_id, settings),
            lambda session: datasets.delete(
                session, "ana", dataset_id, settings, permanently=False
            ),
        )


def test_a_job_that_comes_while_its_foundation_is_deleted_is_refused(
    race: Race, settings: Settings
) -> None:
    dataset_id, model_id = make_dataset(race.database), make_model(race.database)
    with pytest.raises(UnknownModelError, match="You have no model"):
        race.run(
            lambda session: foundations.delete(
                session, "ana", model_id, settings, permanently=False
            ),
            lambda session: order(session, dataset_id, settings, model_id),
        )


def test_a_model_isnt_deleted_while_a_job_comes(race: Race, settings: Settings) -> None:
    dataset_id, model_id = make_dataset(race.database), make_model(race.database)
    with pytest.raises(ModelInUseError):
        race.run(
            lambda session: order(session, dataset_id, settings, model_id),
            lambda session: foundations.delete(
                session, "ana", model_id, settings, permanently=False
            ),
        )


def failed(race: Race) -> str:
    """A job that failed behind a checkpoint."""
    claim = steps.claimed(race.database)
    steps.save(race.database, claim, steps.checkpoint(3))
    steps.do(race.database, ledger.fail, claim, steps.FINAL)
    return claim.job_id


def test_a_retry_doesnt_go_on_from_what_is_just_being_forgotten(
    race: Race, settings: Settings
) -> None:
    job_id = failed(race)
    found = []

    def forget(session: Session) -> None:
        locked(session, Job, "ana", job_id).checkpoint = None

    def retry(session: Session) -> None:
        found.append(jobs.retryable(session, "ana", job_id, settings).checkpoint)

    race.run(forget, retry)
    assert found == [None]


def test_a_job_that_is_just_being_deleted_isnt_retried(race: Race, settings: Settings) -> None:
    job_id = failed(race)
    with pytest.raises(GoneError):
        race.run(
            lambda session: jobs.delete(session, "ana", job_id, settings, permanently=False),
            lambda session: jobs.retryable(session, "ana", job_id, settings),
        )
