"""docs/backup.md carried out: on both databases, while a job runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, select, text

from app.access import keys
from app.access.scopes import ALL
from app.db import Database, new_id
from app.jobs import ledger, moves
from app.jobs.claims import Checkpoint
from app.main import create_app
from app.models import Dataset, Student
from app.settings import Settings
from app.storage import LocalStorage
from app.students import service as students
from tests.app.service import METRICS, MODELS, bundle
from tests.app.webhooks.nets import nowhere
from tests.deploy.files import ROOT
from tests.support import make_dataset, postgres_binary, wait_until
from tests.worker import scenes

FILES = {"config.json": b"{}\n", "model.safetensors": bytes(range(256)) * 4000, "README.md": b"# 1"}


@pytest.fixture
def restored(any_database: Database, tmp_path: Path) -> Iterator[Settings]:
    """Where the restored service will be: an empty database, and a folder that isn't there yet."""
    data = tmp_path / "restored"
    given: dict[str, Any] = {"lease_seconds": 3.0, "heartbeat_seconds": 0.3, "poll_seconds": 0.1}
    url = any_database.engine.url
    if url.get_backend_name() == "sqlite":
        yield Settings(data_dir=data, **given)
        return
    name = f"restored_{os.getpid()}"
    admin = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    address = url.set(database=name).render_as_string(hide_password=False)
    yield Settings(data_dir=data, database_url=address, **given)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def carry_out(
    place: int, settings: Settings, backup: Path, meanwhile: Sequence[Callable[[], object]] = ()
) -> None:
    """The commands of the page's shell block number `place`; after each, what happens meanwhile."""
    page = (ROOT / "docs" / "backup.md").read_text(encoding="utf-8")
    script = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[place]
    script = script.replace("tdmr-server", f"'{sys.executable}' -m app")
    beside = (Path(sys.executable).parent, Path(postgres_binary("pg_dump")).parent)
    known = {
        "PATH": os.pathsep.join([*map(str, beside), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "BACKUP": str(backup),
        "DATA": str(settings.data_dir),
        "STORE": str(settings.storage_dir),
        "DATABASE": settings.url.replace("+psycopg", ""),
        "TDMR_DATA_DIR": str(settings.data_dir),
    }
    if settings.database_url:
        known["TDMR_DATABASE_URL"] = settings.database_url
    commands = re.split(r"(?<!\\)\n", script.strip())
    for command, happens in zip_longest(commands, meanwhile, fillvalue=lambda: None):
        told = ["bash", "-euo", "pipefail", "-c", str(command)]
        done = subprocess.run(told, env=known, capture_output=True, text=True, cwd=backup)
        assert done.returncode == 0, done.stderr
        happens()


def publish(database: Database, storage: LocalStorage, folder: Path) -> str:
    """A student with its files; its id."""
    folder.mkdir()
    dataset_id, student_id = make_dataset(database), new_id("stu")
    files = students.store(storage, student_id, bundle(folder, FILES))
    given = {"owner": "ana", "dataset_id": dataset_id, "spec": MODELS}
    with database.write() as session:
        session.get_one(Dataset, dataset_id).version = "1" * 64
        job = moves.submit(session, **given, kind="distil", max_attempts=1, ring=False)
        more = {"student_id": student_id, "job_id": job.id, "files": files, "metrics": METRICS}
        students.publish(session, **given, **more)
        ledger.request_cancel(session, job)
    return student_id


def test_a_restored_service_has_its_students_and_goes_on_with_its_jobs(
    any_database: Database, settings: Settings, restored: Settings, tmp_path: Path
) -> None:
    url = any_database.engine.url.render_as_string(hide_password=False)
    sqlite = url.startswith("sqlite")
    ours = settings.model_copy(update={} if sqlite else {"database_url": url})
    storage = LocalStorage(ours.storage_dir)
    with any_database.write() as session:
        _, key = keys.create(session, owner="ana", name="test", scopes=ALL)
    first, second = (tmp_path / name for name in ("first", "second"))
    made = [publish(any_database, storage, first)]
    job_id = scenes.distil_job(any_database, storage, ["save", "done"])
    backup = tmp_path / "backup"
    backup.mkdir()
    with scenes.worker_process(ours) as worker:
        wait_until(lambda: scenes.job(any_database, job_id).checkpoint is not None, worker)
        meanwhile = (
            lambda: made.append(publish(any_database, storage, second)),
            lambda: storage.delete(f"students/{made[0]}"),  # as what was deleted is freed
        )
        carry_out(2 if sqlite else 0, ours, backup, meanwhile)
        worker.kill()  # the machine is lost, and what it stored since
    carry_out(3 if sqlite else 1, restored, backup)
    found = {path: path.read_bytes() for path in storage.root.rglob("*") if path.is_file()}
    for path, content in found.items():
        assert (restored.storage_dir / path.relative_to(storage.root)).read_bytes() == content
    database = Database(restored.url)
    with TestClient(create_app(restored, nowhere())) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        for student_id, (name, content) in product(made, FILES.items()):
            assert client.get(f"/v1/students/{student_id}/files/{name}").content == content
    before = scenes.job(database, job_id)
    assert (before.state, before.attempt) == ("running", 1)
    reached = Checkpoint.model_validate(before.checkpoint).step
    with scenes.worker_process(restored) as worker:
        wait_until(lambda: scenes.state(database, job_id) == "succeeded", worker)
    assert scenes.job(database, job_id).attempt == 2
    with database.read() as session:
        student = session.scalars(select(Student).where(Student.job_id == job_id)).one()
    assert student.metrics["resumed_from"] == reached > 0
    database.close()
