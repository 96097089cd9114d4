"""Shortcuts through the API, and a worker's part played in this process."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.api.core import Core
from app.datasets import service as datasets
from app.datasets.check import STAGES, check
from app.db import Base
from app.foundations import service as foundations
from app.jobs import ledger, moves
from app.jobs.claims import Claim
from app.models import Dataset, Job
from app.students import service as students
from tdmr.jobdir import JobDir, Reporter
from tdmr.own import Report
from tests.app.datasets import zips
from tests.app.foundations.files import GOOD as WEIGHTS

ZIP = {"Content-Type": "application/zip"}
OCTETS = {"Content-Type": "application/octet-stream"}
FITS = Report(params=306_240, input_size=160, channels=3, fingerprint="f" * 64)
MODELS = {"foundation": "letters_vit", "student": "test_resnet"}
METRICS: dict[str, Any] = {
    "partial": None,
    "accuracy": 0.9,
    "interval": [0.8, 0.95],
    "student": {"params": 1000},
    "baselines": {"scratch": {"accuracy": 0.8, "interval": [0.7, 0.9]}},
}
BUNDLE = {"config.json": b"{}\n", "model.safetensors": bytes(range(256)) * 20, "README.md": b"# hi"}

LEFT_OUT = ("api_keys", "audit_log")
# What `Service.rows` says of a database in which nothing has been done.
NOTHING = {table.name: 0 for table in Base.metadata.sorted_tables if table.name not in LEFT_OUT}


class Service:
    """What a test does on the way to what it is about."""

    def __init__(self, client: TestClient, core: Core) -> None:
        self.client, self.core = client, core

    def upload(self, content: bytes | None = None, **headers: str) -> dict[str, Any]:
        """Upload an archive."""
        content = zips.pack(zips.good_files()) if content is None else content
        response = self.client.post("/v1/datasets", content=content, headers={**ZIP, **headers})
        assert response.status_code == 201, response.text
        found: dict[str, Any] = response.json()
        return found

    def begun(self, length: int, **headers: str) -> str:
        """The id of a resumable upload that has been begun."""
        headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(length), **headers}
        response = self.client.post("/v1/uploads", headers=headers)
        assert response.status_code == 201, response.text
        upload_id: str = response.json()["id"]
        return upload_id

    def endpoint(self, **more: Any) -> dict[str, Any]:
        """A webhook endpoint with its secret."""
        wanted = {"url": "https://hooks.example.com/tdmr", **more}
        response = self.client.post("/v1/webhook-endpoints", json=wanted)
        assert response.status_code == 201, response.text
        found: dict[str, Any] = response.json()
        return found

    def ping(self, path: str) -> dict[str, Any]:
        """A delivery of the endpoint that `path` begins with."""
        endpoint_id = path.split("/")[3]
        response = self.client.post(f"/v1/webhook-endpoints/{endpoint_id}/test")
        assert response.status_code == 202, response.text
        found: dict[str, Any] = response.json()
        return found

    def upload_model(self, content: bytes = WEIGHTS, **query: str) -> dict[str, Any]:
        """Upload weights."""
        query = {"architecture": "test_vit", **query}
        response = self.client.post("/v1/models", params=query, content=content, headers=OCTETS)
        assert response.status_code == 201, response.text
        found: dict[str, Any] = response.json()
        return found

    def model(self, report: Report = FITS, **query: str) -> dict[str, Any]:
        """An own foundation whose check is over, and found `report`."""
        made = self.upload_model(**query)
        self.check_model(report)
        found: dict[str, Any] = self.client.get(f"/v1/models/{made['id']}").json()
        return found

    def check_model(self, report: Report = FITS) -> None:
        """Play the part of the worker that checks the next model."""
        claim = self.claim("model")
        assert claim is not None
        assert claim.model_id is not None
        with self.core.database.write() as session:
            unwanted = foundations.settle(session, claim.model_id, report)
            ledger.succeed(session, claim, {})
        if unwanted is not None:
            self.core.storage.delete(unwanted)

    def settle(self) -> None:
        """Check what was uploaded, as a worker does."""
        while (claim := self.claim("ingest")) is not None:
            with tempfile.TemporaryDirectory() as folder:
                self._check(claim, Path(folder))

    def _check(self, claim: Claim, folder: Path) -> None:
        core = self.core
        with core.database.read() as session:
            dataset = session.get_one(Dataset, claim.dataset_id)
        assert dataset.upload_key is not None
        options = datasets.check_options(dataset, core.settings)
        upload, job = folder / "upload", JobDir(folder)
        core.storage.fetch(dataset.upload_key, upload)
        report = check(upload, job.out, options, Reporter(job, STAGES))
        files = None
        if report["ok"]:
            names = ("dataset.zip", "gallery.bin")
            put = core.storage.put
            files = datasets.Published(
                *(put(f"datasets/{dataset.id}/{name}", job.out / name) for name in names)
            )
        with core.database.write() as session:
            done = datasets.settle(session, dataset.id, report, files)
            ledger.succeed(session, claim, {})
        assert done is not None
        core.storage.delete(done)

    def dataset(self, content: bytes | None = None) -> dict[str, Any]:
        """A dataset whose check is over."""
        made = self.upload(content)
        self.settle()
        found: dict[str, Any] = self.client.get(f"/v1/datasets/{made['id']}").json()
        return found

    def order(self, **more: Any) -> dict[str, Any]:
        """The body of an order; a dataset is made unless it names one."""
        if "dataset_id" not in more:
            more["dataset_id"] = self.dataset()["id"]
        return {**MODELS, **more}

    def job(self, **more: Any) -> dict[str, Any]:
        """A queued job."""
        response = self.client.post("/v1/jobs", json=self.order(**more))
        assert response.status_code == 201, response.text
        found: dict[str, Any] = response.json()
        return found

    def sweep(self, **more: Any) -> dict[str, Any]:
        """A sweep of two students."""
        if "dataset_id" not in more:
            more["dataset_id"] = self.dataset()["id"]
        students = ["test_resnet", "resnet18"]
        order = {"foundation": MODELS["foundation"], "students": students, **more}
        response = self.client.post("/v1/sweeps", json=order)
        assert response.status_code == 201, response.text
        found: dict[str, Any] = response.json()
        return found

    def key(self, **more: Any) -> dict[str, Any]:
        """A new key, with its token."""
        order = {"name": "made", "scopes": ["jobs:read"], "expires_at": None, **more}
        response = self.client.post("/v1/api-keys", json=order)
        assert response.status_code == 201, response.text
        found: dict[str, Any] = response.json()
        return found

    def claim(self, kind: str) -> Claim | None:
        """Take the next job."""
        with self.core.database.write() as session:
            return moves.claim(session, worker="test", lease_seconds=60, kinds=[kind])

    def student(
        self, files: dict[str, bytes] = BUNDLE, metrics: dict[str, Any] = METRICS
    ) -> dict[str, Any]:
        """A published student."""
        self.job()
        claim = self.claim("distil")
        assert claim is not None
        with self.core.database.write() as session:
            ledger.trained(session, claim, {"trained": []}, ring=False)
        return self.package(files=files, metrics=metrics)

    def package(
        self,
        partial: dict[str, Any] | None = None,
        files: dict[str, bytes] = BUNDLE,
        metrics: dict[str, Any] = METRICS,
    ) -> dict[str, Any]:
        """The student of the next package; `partial` says what of its training is missing."""
        claim = self.claim("package")
        assert claim is not None
        assert claim.parent_id is not None
        student_id = "stu_" + claim.job_id.removeprefix("job_") + "01"
        with tempfile.TemporaryDirectory() as folder:
            files = students.store(self.core.storage, student_id, bundle(Path(folder), files))
        with self.core.database.write() as session:
            students.publish(
                session,
                student_id=student_id,
                job_id=claim.parent_id,
                owner=claim.owner,
                dataset_id=claim.dataset_id or "",
                spec=session.get_one(Job, claim.parent_id).spec,
                files=files,
                metrics={**metrics, "partial": partial},
            )
            told = {"student_id": student_id, "partial": partial is not None}
            ledger.succeed(session, claim, told)
        found: dict[str, Any] = self.client.get(f"/v1/students/{student_id}").json()
        return found

    def running(self, **more: Any) -> Claim:
        """A new job, claimed."""
        self.job(**more)
        claim = self.claim("distil")
        assert claim is not None
        return claim

    def do(self, call: Callable[..., Any], claim: Claim, *more: Any) -> Any:
        """One call of the ledger's, as a worker's."""
        with self.core.database.write() as session:
            return call(session, claim, *more)

    def seen(self, job_id: str) -> dict[str, Any]:
        """The job as its owner sees it."""
        found: dict[str, Any] = self.client.get(f"/v1/jobs/{job_id}").json()
        return found

    def rows(self) -> dict[str, int]:
        """How many rows each table has, but for the keys and what was done with them."""
        with self.core.database.read() as session:
            return {
                table.name: session.scalar(select(func.count()).select_from(table)) or 0
                for table in Base.metadata.sorted_tables
                if table.name not in LEFT_OUT
            }

    def files(self) -> list[str]:
        """Every stored or half-stored file."""
        root = self.core.storage.root
        return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def bundle(folder: Path, files: dict[str, bytes] = BUNDLE) -> Path:
    """A bundle with its manifest."""
    rows = []
    for name, data in files.items():
        (folder / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        row = {"name": name, "bytes": len(data), "sha256": digest}
        rows.append({**row, "media_type": "application/octet-stream"})
    (folder / "manifest.json").write_text(json.dumps({"files": rows}))
    return folder
