"""What is asked of the server, as data: nothing here sends anything."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import httpx

from tdmr.config import DistillOptions

CHUNK = 1 << 20
SAFE = ("GET", "HEAD", "OPTIONS")
KEY = "Idempotency-Key"
TUS = {"Tus-Resumable": "1.0.0"}
IMAGES = 16  # in one request for predictions: the server's default
FINISH_SECONDS = 600.0  # a whole upload is read again before the answer to its last piece comes

Act = Literal["cancel", "pause", "resume"]
Kind = Literal["datasets", "models", "jobs", "students"]


class FilePart(httpx.SyncByteStream, httpx.AsyncByteStream):
    """`count` bytes of a file from `start` on, as a body that can be sent more than once.

    `on_sent` is told how many have left, and of how many; from the start, when they are sent again.
    """

    def __init__(
        self, path: Path, start: int, count: int, on_sent: Callable[[int, int], None] | None = None
    ) -> None:
        self._path, self._start, self._count, self._on_sent = path, start, count, on_sent

    def __iter__(self) -> Iterator[bytes]:
        left = self._count
        for chunk in self._chunks():
            yield chunk
            left -= len(chunk)
            self._tell(left)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks, left = self._chunks(), self._count
        while chunk := await asyncio.to_thread(next, chunks, b""):
            yield chunk
            left -= len(chunk)
            self._tell(left)

    def _chunks(self) -> Iterator[bytes]:
        left = self._count
        with self._path.open("rb") as file:
            file.seek(self._start)
            while left and (chunk := file.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk

    def _tell(self, left: int) -> None:
        if self._on_sent is not None:
            self._on_sent(self._count - left, self._count)


@dataclass(frozen=True)
class Call:
    """One request. It may be sent again when it only reads, or has an idempotency key."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    files: list[tuple[str, tuple[str, bytes]]] | None = None
    body: FilePart | None = None
    only_reads: bool = False
    read_seconds: float | None = None  # for the answer, instead of the client's own timeout

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does no more than sending it once."""
        return self.only_reads or self.method in (*SAFE, "DELETE") or KEY in self.headers

    def having(
        self,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        read_seconds: float | None = None,
    ) -> Call:
        """The same with more of these."""
        return replace(
            self,
            headers={**self.headers, **(headers or {})},
            params={**self.params, **(params or {})},
            read_seconds=read_seconds or self.read_seconds,
        )

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The request as `http` sends it."""
        timeout = http.timeout
        if self.read_seconds is not None:
            timeout = httpx.Timeout(**{**timeout.as_dict(), "read": self.read_seconds})
        request = http.build_request(
            self.method,
            self.path,
            params={k: v for k, v in self.params.items() if v is not None} or None,
            headers=dict(self.headers),
            json=self.json,
            files=self.files,
            timeout=timeout,
        )
        if self.body is not None:
            request.stream = self.body
        return request


def get(*steps: str, **params: Any) -> Call:
    """GET /v1/…; steps that are ids are quoted, so that none leads anywhere else."""
    return Call("GET", _path(*steps), params)


def create_dataset(archive: Path, name: str) -> Call:
    """POST /v1/datasets with the file as the body; its bytes say what it is."""
    total = archive.stat().st_size
    headers = {
        **_new_key(),
        "Content-Type": "application/octet-stream",
        "Content-Length": str(total),
    }
    body = FilePart(archive, 0, total)
    return Call("POST", _path("datasets"), {"name": name}, headers, body=body)


def create_model(
    weights: Path, on_sent: Callable[[int, int], None] | None, **told: str | None
) -> Call:
    """POST /v1/models with the file as the body; what is None in `told` is left to the server."""
    total = weights.stat().st_size
    headers = {
        **_new_key(),
        "Content-Type": "application/octet-stream",
        "Content-Length": str(total),
    }
    body = FilePart(weights, 0, total, on_sent)
    path = _path("models")
    return Call("POST", path, told, headers, body=body, read_seconds=FINISH_SECONDS)


def begin_upload(total: int, name: str) -> Call:
    """POST /v1/uploads (tus, creation); sent again, it begins no other one."""
    encoded = base64.b64encode(name.encode()).decode()
    headers = {**_new_key(), "Upload-Length": str(total), "Upload-Metadata": f"name {encoded}"}
    return Call("POST", _path("uploads"), headers={**TUS, **headers})


def append(url: str, archive: Path, start: int, count: int) -> Call:
    """PATCH an upload with a piece of the file (tus, core)."""
    headers = {
        **TUS,
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(count),
        "Upload-Offset": str(start),
    }
    body = FilePart(archive, start, count)
    return Call("PATCH", url, headers=headers, body=body, read_seconds=FINISH_SECONDS)


def reached(url: str) -> Call:
    """HEAD of an upload: how far it is (tus, core)."""
    return Call("HEAD", url, headers=TUS)


def submit(
    dataset_id: str,
    foundation: str,
    student: str,
    *,
    options: DistillOptions | Mapping[str, Any] | None,
    max_seconds: float | None,
    **more: Any,
) -> Call:
    """POST /v1/jobs. What is None in `more` is left to the server."""
    body = {
        "dataset_id": dataset_id,
        "foundation": foundation,
        "student": student,
        "options": _options(options),
        "budget": None if max_seconds is None else {"max_seconds": max_seconds},
        **{name: value for name, value in more.items() if value is not None},
    }
    return Call("POST", _path("jobs"), headers=_new_key(), json=body)


def submit_sweep(
    dataset_id: str,
    foundation: str,
    students: Iterable[str],
    *,
    options: DistillOptions | Mapping[str, Any] | None,
    max_seconds: float | None,
    **more: Any,
) -> Call:
    """POST /v1/sweeps. What is None in `more` is left to the server."""
    body = {
        "dataset_id": dataset_id,
        "foundation": foundation,
        "students": list(students),
        "options": _options(options),
        "budget": None if max_seconds is None else {"max_seconds": max_seconds},
        **{name: value for name, value in more.items() if value is not None},
    }
    return Call("POST", _path("sweeps"), headers=_new_key(), json=body)


def delete(kind: Kind, thing_id: str, permanently: bool) -> Call:
    """DELETE /v1/{kind}/{id}."""
    return Call("DELETE", _path(kind, thing_id), {"permanently": "true" if permanently else None})


def restore(kind: Kind, thing_id: str) -> Call:
    """POST /v1/{kind}/{id}/restore."""
    return Call("POST", _path(kind, thing_id, "restore"))


def act(job_id: str, what: Act) -> Call:
    """POST /v1/jobs/{id}/cancel, pause or resume."""
    return Call("POST", _path("jobs", job_id, what))


def cancel_sweep(sweep_id: str) -> Call:
    """POST /v1/sweeps/{id}/cancel."""
    return Call("POST", _path("sweeps", sweep_id, "cancel"))


def retry(job_id: str, changes: Mapping[str, Any]) -> Call:
    """POST /v1/jobs/{id}/retry with a merge patch (RFC 7396) of the order."""
    body = dict(changes)
    if isinstance(body.get("options"), DistillOptions):
        body["options"] = _options(body["options"])
    return Call("POST", _path("jobs", job_id, "retry"), headers=_new_key(), json=body)


def predictions(student_id: str, images: Iterable[str | Path], top: int) -> Iterator[Call]:
    """POST /v1/students/{id}/predict, so often that no request has more images than it may.

    It changes nothing, so each may be sent again.
    """
    path, paths = _path("students", student_id, "predict"), iter(images)
    while batch := [Path(each) for each in islice(paths, IMAGES)]:
        files = [("image", (each.name, each.read_bytes())) for each in batch]
        yield Call("POST", path, {"top": top}, files=files, only_reads=True)


def _path(*steps: str) -> str:
    return "/".join(["/v1", *(quote(step, safe="") for step in steps)])


def _new_key() -> dict[str, str]:
    return {KEY: uuid.uuid4().hex}


def _options(options: DistillOptions | Mapping[str, Any] | None) -> dict[str, Any]:
    if isinstance(options, DistillOptions):
        return options.model_dump(mode="json", exclude_unset=True)
    return dict(options or {})
