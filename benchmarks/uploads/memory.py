"""How much memory the server takes more while a large file goes in or out."""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from app.cli import FIRST_OWNER
from app.db import Database, new_id, now
from app.jobs import moves
from app.models import Dataset, Student
from app.storage import LocalStorage
from app.students.service import StoredFile
from benchmarks.served import Running, serving

MEBIBYTE = 1 << 20
START, END = b"PK\x03\x04", b"PK\x05\x06" + bytes(18)  # of a zip: all that is looked at on the way
PIECES = 8  # that a resumable upload comes in
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


@dataclass(frozen=True)
class Content:
    """So many bytes, each mebibyte another, without being anywhere."""

    mebibytes: int

    @property
    def total(self) -> int:
        """Their number."""
        return self.mebibytes * MEBIBYTE

    def blocks(self, first: int = 0, last: int | None = None) -> Iterator[bytes]:
        """The mebibytes from `first` to before `last`."""
        noise = random.Random(0).randbytes(MEBIBYTE)
        for place in range(first, self.mebibytes if last is None else last):
            block = bytearray(noise)
            block[8:16] = place.to_bytes(8, "big")
            if place == 0:
                block[: len(START)] = START
            if place == self.mebibytes - 1:
                block[-len(END) :] = END
            yield bytes(block)

    def sha256(self) -> str:
        """Their hash."""
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()


def measure(folder: Path, mebibytes: int) -> dict[str, Any]:
    """Bytes of memory that the server took more for each way in, and for the way out.

    Raises AssertionError when what arrived isn't what was sent.
    """
    content = Content(mebibytes)
    sha256 = content.sha256()
    found: dict[str, Any] = {"bytes": content.total}
    for name, way in (("post", _post), ("tus", _tus), ("download", _download)):
        scratch = folder / name
        scratch.mkdir()
        with serving(scratch, "--no-worker") as server:
            prepared = publish(server, content) if way is _download else ""
            before = server.forget_peak()
            assert way(server, content, prepared) == sha256
            found[f"{name}_extra_bytes"] = server.peak() - before
        _remove_stored(server)
    return found


def _post(server: Running, content: Content, _: str) -> str:
    headers = {"Content-Type": "application/zip"}
    with server.client() as client:
        response = client.post("/v1/datasets", content=content.blocks(), headers=headers)
    assert response.status_code == 201, response.text
    return str(response.json()["upload_sha256"])


def _tus(server: Running, content: Content, _: str) -> str:
    with server.client() as client:
        headers = {**TUS, "Upload-Length": str(content.total)}
        del headers["Content-Type"]
        url = client.post("/v1/uploads", headers=headers).headers["Location"]
        places = [content.mebibytes * piece // PIECES for piece in range(PIECES + 1)]
        for first, last in pairwise(places):
            response = client.patch(
                url,
                content=content.blocks(first, last),
                headers={**TUS, "Upload-Offset": str(first * MEBIBYTE)},
            )
            assert response.status_code == 204, response.text
        return str(client.get(response.headers["Tdmr-Dataset"]).json()["upload_sha256"])


def _download(server: Running, _: Content, url: str) -> str:
    digest = hashlib.sha256()
    with server.client() as client, client.stream("GET", url) as response:
        assert response.status_code == 200, response.status_code
        for chunk in response.iter_bytes():
            digest.update(chunk)
    return digest.hexdigest()


def publish(server: Running, content: Content) -> str:
    """A student whose one file is the content; where that is served."""
    storage = LocalStorage(server.data / "storage")
    student_id = new_id("stu")
    key = f"students/{student_id}/model.safetensors"
    crc32 = 0
    with storage.writing(key) as writer:
        for block in content.blocks():
            writer.write(block)
            crc32 = zlib.crc32(block, crc32)
    file = StoredFile(
        name="model.safetensors",
        bytes=writer.bytes,
        sha256=writer.sha256,
        crc32=crc32,
        media_type="application/octet-stream",
        key=key,
    )
    database = Database(f"sqlite:///{server.data / 'tdmr.db'}")
    with database.write() as session:
        moment = now(session)
        dataset = Dataset(
            id=new_id("ds"),
            owner=FIRST_OWNER,
            name="large",
            status="ready",
            upload_bytes=0,
            upload_sha256="0" * 64,
            findings=[],
            created_at=moment,
        )
        session.add(dataset)
        session.flush()
        options: dict[str, Any] = {"spec": {}, "max_attempts": 1, "ring": False}
        job = moves.submit(
            session, owner=FIRST_OWNER, kind="distil", dataset_id=dataset.id, **options
        )
        student = Student(
            id=student_id,
            owner=FIRST_OWNER,
            job_id=job.id,
            dataset_id=dataset.id,
            dataset_version="0" * 64,
            foundation="f",
            architecture="s",
            partial=False,
            metrics={},
            files=[file.model_dump()],
            created_at=moment,
        )
        session.add(student)
    database.close()
    return f"/v1/students/{student_id}/files/model.safetensors"


def _remove_stored(server: Running) -> None:
    LocalStorage(server.data / "storage").delete("uploads")
    LocalStorage(server.data / "storage").delete("parts")
    LocalStorage(server.data / "storage").delete("students")
