"""Students for a real server, written into its database and store."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.cli import FIRST_OWNER
from app.db import Database, new_id
from app.jobs import ledger, moves
from app.jobs.claims import Claim
from app.models import Dataset
from app.storage import LocalStorage
from app.students import service as students
from benchmarks.served import Running
from tdmr.config import JobSpec
from tdmr.errors import Failure
from tests.app.service import METRICS, bundle
from tests.support import make_dataset


def publish(server: Running, files: dict[str, bytes], metrics: dict[str, Any] | None = None) -> str:
    """A student of the server's first owner; its id."""
    with database_of(server) as database:
        dataset_id, student_id = make_dataset(database, owner=FIRST_OWNER), new_id("stu")
        rows = stored(server, student_id, files)
        _insert(database, dataset_id, student_id, rows, {**METRICS, **(metrics or {})})
    return student_id


@contextmanager
def database_of(server: Running) -> Iterator[Database]:
    """The server's own database."""
    database = Database(f"sqlite:///{server.data / 'tdmr.db'}")
    try:
        yield database
    finally:
        database.close()


def stored(server: Running, student_id: str, files: dict[str, bytes]) -> list[dict[str, Any]]:
    """What the store of the server says of a student's files, put there."""
    storage = LocalStorage(server.data / "storage")
    with tempfile.TemporaryDirectory() as folder:
        return students.store(storage, student_id, bundle(Path(folder), files))


def _insert(
    database: Database,
    dataset_id: str,
    student_id: str,
    files: list[dict[str, Any]],
    metrics: dict[str, Any],
) -> None:
    with database.write() as session:
        session.get_one(Dataset, dataset_id).version = "1" * 64
        job = moves.submit(
            session,
            owner=FIRST_OWNER,
            kind="distil",
            dataset_id=dataset_id,
            spec=JobSpec(foundation="letters_vit", student="test_resnet").model_dump(mode="json"),
            max_attempts=1,
            ring=False,
        )
        students.publish(
            session,
            student_id=student_id,
            job_id=job.id,
            owner=FIRST_OWNER,
            dataset_id=dataset_id,
            spec={"foundation": "letters_vit", "student": "test_resnet"},
            files=files,
            metrics=metrics,
        )


def ready_dataset(server: Running) -> str:
    """A dataset of the server's first owner that jobs can be ordered on, without files; its id."""
    with database_of(server) as database:
        dataset_id = make_dataset(database, owner=FIRST_OWNER)
        with database.write() as session:
            session.get_one(Dataset, dataset_id).version = "1" * 64
    return dataset_id


class Worker:
    """Plays the part of a worker for a server that has none."""

    def __init__(self, server: Running) -> None:
        self._server = server

    def claim(self, kind: str = "distil") -> Claim:
        """Take the next job."""
        with database_of(self._server) as database, database.write() as session:
            claim = moves.claim(session, worker="test", lease_seconds=600, kinds=[kind])
        assert claim is not None
        return claim

    def tell(self, claim: Claim, step: int) -> None:
        """Say how far a training is, of 20 steps."""
        stage = {"name": "distil", "index": 4, "count": 6, "progress": step / 20}
        progress = {"stage": stage, "step": step, "steps": 20, "losses": {"loss": 1 / step}}
        self._do(ledger.beat, claim, lease_seconds=600, progress=progress)

    def fail(self, claim: Claim, failure: Failure) -> None:
        """End it badly."""
        self._do(ledger.fail, claim, failure)

    def succeed(self, claim: Claim, files: dict[str, bytes]) -> str:
        """End it with a student; its id."""
        self._do(ledger.trained, claim, {"trained": []}, ring=False)
        package, student_id = self.claim("package"), new_id("stu")
        rows = stored(self._server, student_id, files)
        with database_of(self._server) as database, database.write() as session:
            students.publish(
                session,
                student_id=student_id,
                job_id=claim.job_id,
                owner=claim.owner,
                dataset_id=claim.dataset_id,
                spec=claim.spec,
                files=rows,
                metrics=METRICS,
            )
            ledger.succeed(session, package, {"student_id": student_id, "partial": False})
        return student_id

    def _do(self, call: Callable[..., Any], *arguments: Any, **more: Any) -> None:
        with database_of(self._server) as database, database.write() as session:
            call(session, *arguments, **more)
