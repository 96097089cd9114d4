"""A client of the HTTP service: upload, submit, wait, download. Loads no torch.

with Client("http://127.0.0.1:8080", key) as client:
    dataset = client.wait_for_dataset(client.upload_dataset(Path("images.zip"))["id"])
    job = client.submit(dataset["id"], "letters_vit", "test_resnet")
    job = client.wait_for_job(job["id"])
    client.download(job["student_id"], Path("student"))
"""

from __future__ import annotations

import hashlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tdmr import resumable
from tdmr.config import DistillOptions
from tdmr.resumable import Progress

Json = dict[str, Any]
ENDED = ("succeeded", "failed", "cancelled")
CHUNK = 1 << 20
RESUMABLE_FROM = 64 << 20  # smaller files are sent again faster than they are gone on with


class ApiError(Exception):
    """An answer of 4xx or 5xx: `status`, and the problem document (RFC 9457) as `problem`."""

    def __init__(self, status: int, problem: Json) -> None:
        self.status = status
        self.problem = problem
        found = "".join(f"\n  {e['pointer']}: {e['detail']}" for e in problem.get("errors", []))
        super().__init__(f"{status} {problem.get('code', '')}: {problem.get('detail', '')}{found}")


class Client:
    """Talks to one server with one access key.

    Every call raises ApiError for a refusal, and httpx.TransportError when the server can't be
    reached.
    """

    def __init__(self, address: str, key: str, timeout: float = 30.0) -> None:
        self._http = httpx.Client(
            base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=timeout
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def upload_dataset(
        self,
        archive: Path,
        name: str | None = None,
        *,
        on_progress: Progress | None = None,
        resumable_from: int = RESUMABLE_FROM,
        patience: float = 300.0,
    ) -> Json:
        """Send an archive of class folders, streamed from disk; the dataset, still `processing`.

        From `resumable_from` bytes on it goes in pieces, and goes on where it was after trouble
        that is over within `patience` seconds. `on_progress` is told how many bytes have arrived,
        and of how many. Raises ValueError when the server has stored something else.
        """
        total = archive.stat().st_size
        if total >= resumable_from:
            answer = resumable.send(
                self._http, archive, name or archive.stem, on_progress, patience=patience
            )
            if answer.is_error:
                raise _error(answer)
            found = self._call("GET", answer.headers[resumable.DATASET])
            if found["upload_sha256"] != _sha256(archive):
                raise ValueError(f"{archive} arrived with another SHA-256 than it has here")
            return found
        with archive.open("rb") as file:
            found = self._call(
                "POST",
                "/v1/datasets",
                params={"name": name or archive.stem},
                content=_chunks(file),
                headers={
                    "Content-Type": "application/octet-stream",  # its bytes say what it is
                    "Content-Length": str(total),
                    "Idempotency-Key": uuid.uuid4().hex,
                },
            )
        if on_progress is not None:
            on_progress(total, total)
        return found

    def dataset(self, dataset_id: str) -> Json:
        """A dataset: status, classes, splits and findings."""
        return self._call("GET", f"/v1/datasets/{dataset_id}")

    def report(self, dataset_id: str) -> Json:
        """Every finding of a dataset's check, and the newest audit of its images, or None."""
        return self._call("GET", f"/v1/datasets/{dataset_id}/report")

    def wait_for_dataset(self, dataset_id: str, every: float = 0.3) -> Json:
        """Poll until the dataset is `ready` or `invalid`."""
        while (found := self.dataset(dataset_id))["status"] == "processing":
            time.sleep(every)
        return found

    def models(self, role: str | None = None) -> list[Json]:
        """The models that a job can name."""
        answer = self._call("GET", "/v1/models", params={"role": role} if role else {})
        rows: list[Json] = answer["data"]
        return rows

    def recommend(self, **limits: float | str) -> Json:
        """Students of the catalog by measured latency, and how each stands to the limits.

        `limits` are `max_params`, `max_latency_ms` and `max_file_bytes`; `machine` says where.
        """
        return self._call("GET", "/v1/models/recommendations", params=limits)

    def submit(
        self,
        dataset_id: str,
        foundation: str,
        student: str,
        *,
        options: DistillOptions | None = None,
        baselines: Iterable[str] = ("scratch", "probe", "kd"),
        max_seconds: float | None = None,
        priority: int = 0,
        queue: str = "default",
    ) -> Json:
        """Order a student; the job, `queued`.

        After `max_seconds` of work the job ends with the student so far. `priority` orders your own
        waiting jobs; `queue` is one of the service's.
        """
        body = {
            "dataset_id": dataset_id,
            "foundation": foundation,
            "student": student,
            "options": options.model_dump(mode="json", exclude_unset=True) if options else {},
            "baselines": list(baselines),
            "budget": None if max_seconds is None else {"max_seconds": max_seconds},
            "priority": priority,
            "queue": queue,
        }
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._call("POST", "/v1/jobs", json=body, headers=headers)

    def job(self, job_id: str) -> Json:
        """A job: status, stage, losses, failure, student."""
        return self._call("GET", f"/v1/jobs/{job_id}")

    def wait_for_job(
        self, job_id: str, on_poll: Callable[[Json], None] | None = None, every: float = 0.5
    ) -> Json:
        """Poll until the job has ended; `on_poll` is shown every answer."""
        while True:
            found = self.job(job_id)
            if on_poll:
                on_poll(found)
            if found["status"] in ENDED:
                return found
            time.sleep(every)

    def cancel(self, job_id: str) -> Json:
        """Call a job off."""
        return self._call("POST", f"/v1/jobs/{job_id}/cancel")

    def pause(self, job_id: str) -> Json:
        """Stop a job behind a checkpoint; `pausing`, then `paused`."""
        return self._call("POST", f"/v1/jobs/{job_id}/pause")

    def resume(self, job_id: str) -> Json:
        """Queue a paused job again."""
        return self._call("POST", f"/v1/jobs/{job_id}/resume")

    def retry(self, job_id: str, **changes: Any) -> Json:
        """Order a job anew that failed, was cancelled or ended early; the new job.

        `changes` are a merge patch of the order: `options`, `baselines`, `budget`, `priority`,
        `queue`. Without any, the new job goes on from the old one's checkpoint.
        """
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._call("POST", f"/v1/jobs/{job_id}/retry", json=changes, headers=headers)

    def student(self, student_id: str) -> Json:
        """A student: accuracy, baselines, metrics and files."""
        return self._call("GET", f"/v1/students/{student_id}")

    def predict(self, student_id: str, images: Iterable[Path], top: int = 5) -> list[Json]:
        """What images show: for each its `classes`, by calibrated probability."""
        files = [("image", (path.name, path.read_bytes())) for path in images]
        url = f"/v1/students/{student_id}/predict"
        found: list[Json] = self._call("POST", url, params={"top": top}, files=files)["predictions"]
        return found

    def download(self, student_id: str, folder: Path) -> Path:
        """Fetch every file of a student into a new folder, each checked against its SHA-256.

        The folder appears only when it is complete. Raises ValueError for a digest that differs.
        """
        if folder.exists():
            raise FileExistsError(f"{folder} exists already; choose a new folder")
        staged = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
        staged.mkdir(parents=True)
        try:
            for row in self.student(student_id)["files"]:
                self._fetch(student_id, row, staged / Path(row["name"]).name)
            staged.rename(folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return folder

    def _fetch(self, student_id: str, row: Json, target: Path) -> None:
        digest = hashlib.sha256()
        url = f"/v1/students/{student_id}/files/{row['name']}"
        with self._http.stream("GET", url) as response, target.open("wb") as file:
            if response.is_error:
                response.read()
                raise _error(response)
            for chunk in response.iter_bytes(CHUNK):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != row["sha256"]:
            raise ValueError(f"{row['name']} arrived with another SHA-256 than the server states")

    def _call(self, method: str, url: str, **arguments: Any) -> Json:
        response = self._http.request(method, url, **arguments)
        if response.is_error:
            raise _error(response)
        answer: Json = response.json()
        return answer


def _chunks(file: Any) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _error(response: httpx.Response) -> ApiError:
    try:
        problem = response.json()
    except ValueError:
        problem = {"detail": response.text[:500]}
    return ApiError(response.status_code, problem)
