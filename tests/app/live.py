"""Students for a real server, written into its database and store."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from app.cli import FIRST_OWNER
from app.db import Database, new_id
from app.jobs import moves
from app.models import Dataset
from app.storage import LocalStorage
from app.students import service as students
from benchmarks.served import Running
from tdmr.config import JobSpec
from tests.app.service import METRICS, bundle
from tests.support import make_dataset


def publish(server: Running, files: dict[str, bytes], metrics: dict[str, Any] | None = None) -> str:
    """A student of the server's first owner; its id."""
    storage = LocalStorage(server.data / "storage")
    database = Database(f"sqlite:///{server.data / 'tdmr.db'}")
    dataset_id, student_id = make_dataset(database, owner=FIRST_OWNER), new_id("stu")
    with tempfile.TemporaryDirectory() as folder:
        rows = students.store(storage, student_id, bundle(Path(folder), files))
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
            files=rows,
            metrics={**METRICS, **(metrics or {})},
        )
    database.close()
    return student_id
