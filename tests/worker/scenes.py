"""Jobs to run, and what to look at while they run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from app.db import Database, now
from app.jobs import ledger, log, moves
from app.models import Dataset, Event, Job
from app.settings import Settings
from app.storage import LocalStorage, Storage
from tests.support import end, make_dataset, wait_until
from worker.launch import alive

Worker = subprocess.Popen[bytes]


def distil_job(database: Database, storage: Storage, play: str | list[str], **given: Any) -> str:
    """Queue a distillation whose stand-in plays `play`; `given` goes to `ledger.submit`."""
    dataset_id = make_dataset(database)
    with tempfile.NamedTemporaryFile() as source:
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("index.json", "{}")
            archive.writestr("images/0.png", b"pixels")
        stored = storage.put(f"datasets/{dataset_id}/dataset-1.zip", Path(source.name))
    spec = {"foundation": "f", "student": "s", "play": play, **given.pop("spec", {})}
    with database.write() as session:
        dataset = session.get_one(Dataset, dataset_id)
        dataset.file_key, dataset.version = stored.key, "1" * 64
        dataset.file_sha256 = stored.sha256
        options = {"owner": "ana", "kind": "distil", "dataset_id": dataset_id, "spec": spec}
        options |= {"max_attempts": 3, "ring": False, **given}
        return moves.submit(session, **options).id


GOOD = {"cat/1.png": "red", "cat/2.png": "tan", "dog/1.png": "blue", "dog/2.png": "navy"}


def ingest_job(
    database: Database, storage: LocalStorage, images: dict[str, str]
) -> tuple[str, str]:
    """Store an upload of plain images (name: colour); give its dataset and the job to check it."""
    dataset_id = make_dataset(database, status="processing")
    source = storage.root / "upload.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for name, colour in images.items():
            with archive.open(name, "w") as file:
                Image.new("RGB", (8, 8), colour).save(file, "PNG")
    stored = storage.put(f"uploads/{dataset_id}", source)
    source.unlink()
    with database.write() as session:
        dataset = session.get_one(Dataset, dataset_id)
        dataset.upload_key, dataset.upload_sha256 = stored.key, stored.sha256
        options = {"owner": "ana", "kind": "ingest", "dataset_id": dataset_id, "spec": {}}
        return dataset_id, moves.submit(session, **options, max_attempts=1, ring=False).id


def job(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, job_id)


def events(database: Database, job_id: str) -> list[Event]:
    with database.read() as session:
        return log.read(session, job_id, 0, 1000)


def state(database: Database, job_id: str) -> str:
    return job(database, job_id).state


def request_cancel(database: Database, job_id: str) -> None:
    with database.write() as session:
        ledger.request_cancel(session, session.get_one(Job, job_id))


def make_due(database: Database, job_id: str) -> None:
    with database.write() as session:
        session.get_one(Job, job_id).run_after = now(session)


def hanging(database: Database, job_id: str, times: int = 1) -> list[int]:
    """Wait until the stand-in hangs (for the `times`-th time), and give its process and child."""

    def told() -> list[str]:
        found = [e.data["message"] for e in events(database, job_id) if e.type == "warning"]
        return found if len(found) >= times else []

    wait_until(told)
    pids: list[int] = json.loads(told()[times - 1])
    assert all(running(pid) for pid in pids)
    return pids


def running(pid: int) -> bool:
    """Whether a process runs; a zombie doesn't."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def gone(pids: list[int]) -> bool:
    return not any(running(pid) for pid in pids) and not alive(pids[0])


def files_under(*folders: Path) -> list[str]:
    return [str(p) for folder in folders for p in folder.rglob("*") if p.is_file()]


STANDIN = "tests.worker.standin_worker"


def poller_worker(settings: Settings, *options: str) -> AbstractContextManager[Worker]:
    """A real worker that polls, whose jobs really train."""
    return worker_process(settings, "--device", "cpu", *options, module="worker")


def celery_worker(settings: Settings) -> AbstractContextManager[Worker]:
    """A real worker that hears bells from `settings.broker_url`, whose jobs really train."""
    return worker_process(settings, "--device", "cpu", "--celery", module="worker")


def environment(settings: Settings) -> dict[str, str]:
    """The settings as a process's environment."""
    given = settings.model_dump(mode="json", exclude_none=True)
    given["queues"] = ",".join(settings.queues)
    return {f"TDMR_{name.upper()}": str(value) for name, value in given.items()}


@contextmanager
def worker_process(settings: Settings, *options: str, module: str = STANDIN) -> Iterator[Worker]:
    """A worker in a process of its own, ended with the block; by default it runs stand-ins."""
    env = os.environ | environment(settings)
    worker = subprocess.Popen([sys.executable, "-m", module, *options], env=env)
    try:
        yield worker
    finally:
        end(worker)
