"""Students: published once by a worker, then only read.

Functions with a session work in the caller's transaction.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import deletion
from app.db import now
from app.errors import DamagedFileError, NotFoundError
from app.models import Dataset, Json, Student
from app.settings import Settings
from app.storage import CHUNK, Storage
from app.webhooks import events as webhooks

MANIFEST = "manifest.json"

log = structlog.get_logger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class BundleError(Exception):
    """A bundle on disk isn't the one that its manifest describes."""


class ManifestFile(BaseModel):
    """One row of a bundle's manifest."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    bytes: int = Field(ge=0)
    sha256: str
    media_type: str


class Manifest(BaseModel):
    """What a bundle's manifest.json says that it holds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    files: list[ManifestFile]


class StoredFile(ManifestFile):
    """A file of a student, its storage key, and the checksum that a zip archive of it needs."""

    key: str
    crc32: int


def store(storage: Storage, student_id: str, out: Path) -> list[dict[str, Any]]:
    """Store a bundle's files and its manifest; give a row for each: what `publish` takes.

    Raises BundleError when a file isn't what the manifest says; nothing stays stored then.
    """
    manifest = Manifest.model_validate_json((out / MANIFEST).read_bytes())
    names = [file.name for file in manifest.files]
    if len(set(names)) != len(names) or not all(map(_NAME.fullmatch, names)) or MANIFEST in names:
        raise BundleError("the manifest has names that can't be taken")
    prefix = f"students/{student_id}"
    try:
        rows = [_put(storage, prefix, out, file) for file in manifest.files]
        rows.append(_put_manifest(storage, prefix, out))
    except BaseException:  # nothing stays stored, whatever it was
        storage.delete(prefix)
        raise
    return [row.model_dump() for row in rows]


def _put(storage: Storage, prefix: str, out: Path, file: ManifestFile) -> StoredFile:
    stored = storage.put(f"{prefix}/{file.name}", out / file.name)
    if (stored.bytes, stored.sha256) != (file.bytes, file.sha256):
        raise BundleError(f"{file.name} isn't the file that the manifest describes")
    return StoredFile(**file.model_dump(), key=stored.key, crc32=_crc32(out / file.name))


def _put_manifest(storage: Storage, prefix: str, out: Path) -> StoredFile:
    stored = storage.put(f"{prefix}/{MANIFEST}", out / MANIFEST)
    return StoredFile(
        name=MANIFEST,
        bytes=stored.bytes,
        sha256=stored.sha256,
        media_type="application/json",
        key=stored.key,
        crc32=_crc32(out / MANIFEST),
    )


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def publish(
    session: Session,
    *,
    student_id: str,
    job_id: str,
    owner: str,
    dataset_id: str,
    spec: Json,
    files: list[dict[str, Any]],
    metrics: Json,
) -> None:
    """Make a stored student visible, in the transaction that ends its job."""
    dataset = session.get_one(Dataset, dataset_id)
    assert dataset.version is not None, "jobs run on datasets that are ready"
    session.add(
        Student(
            id=student_id,
            owner=owner,
            job_id=job_id,
            dataset_id=dataset_id,
            dataset_version=dataset.version,
            foundation=spec["foundation"],
            architecture=spec["student"],
            partial=metrics.get("partial") is not None,
            metrics=metrics,
            files=files,
            created_at=now(session),
        )
    )
    session.flush()
    webhooks.tell(session, owner, "student.created", student_id=student_id, job_id=job_id)


def get(session: Session, owner: str, student_id: str) -> Student:
    """An owner's student. Raises NotFoundError, also for somebody else's, and GoneError."""
    student = session.scalars(
        select(Student).where(Student.id == student_id, Student.owner == owner)
    ).one_or_none()
    if student is None:
        raise NotFoundError("There is no such student.")
    deletion.check(student)
    return student


def delete(
    session: Session, owner: str, student_id: str, settings: Settings, *, permanently: bool
) -> None:
    """Delete a student; the job that made it stays. Raises NotFoundError."""
    student = deletion.locked(session, Student, owner, student_id)
    deletion.delete(session, student, settings, permanently=permanently)


def restore(session: Session, owner: str, student_id: str) -> Student:
    """Bring a deleted student back. Raises NotFoundError and GoneError."""
    student = deletion.locked(session, Student, owner, student_id)
    deletion.restore(session, student)
    return student


def newest(session: Session, owner: str, before: str | None, limit: int) -> list[Student]:
    """An owner's students, the newest first, beginning behind the id `before`."""
    query = select(Student).where(Student.owner == owner, Student.deleted_at.is_(None))
    if before is not None:
        query = query.where(Student.id < before)
    return list(session.scalars(query.order_by(Student.id.desc()).limit(limit)))


def files_of(student: Student) -> list[StoredFile]:
    """A student's files, by name."""
    rows = [StoredFile.model_validate(row) for row in student.files]
    return sorted(rows, key=lambda row: row.name)


def file_of(student: Student, name: str) -> StoredFile:
    """One file of a student. Raises NotFoundError."""
    for file in files_of(student):
        if file.name == name:
            return file
    raise NotFoundError("The student has no file of that name.")


def check_stored(storage: Storage, file: StoredFile) -> None:
    """Look whether a file of a student is there. Raises DamagedFileError: it's gone, or was cut."""
    if storage.size(file.key) != file.bytes:
        raise damaged(file)


def damaged(file: StoredFile) -> DamagedFileError:
    """What to tell of a file that isn't what was stored; its key is for the log alone."""
    log.error("damaged_file", key=file.key)
    return DamagedFileError(f"The student's {file.name} isn't what was stored. Retry its job.")
