"""Resumable uploads: a row that says what is durable, a part that grows, a dataset at the end.

The row is the truth: it moves behind the part's fsync, and what the part has beyond it is cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app import audit
from app.datasets import service
from app.db import Database, new_id, now
from app.errors import GoneError, LockedError, NotFoundError, TooManyUploadsError
from app.jobs.idempotency import Idempotency
from app.models import Dataset, Upload
from app.settings import Settings
from app.storage import Storage, Stored

PARTS = "parts"
RETRY_SECONDS = 60  # after which a caller with too many open uploads may look again


def new_upload_id() -> str:
    """An id for an upload whose part is about to be begun."""
    return new_id("up")


def part_key(upload_id: str) -> str:
    """Where the bytes of an upload are stored; a finished one's dataset has them there too."""
    return f"{PARTS}/{upload_id}"


def create(
    session: Session,
    *,
    upload_id: str,
    owner: str,
    name: str,
    length: int,
    metadata: str | None,
    idempotency: Idempotency,
    settings: Settings,
) -> Upload:
    """Note an upload of `length` bytes that is about to come. Raises TooManyUploadsError."""
    if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer at a time anyway
        session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"uploads of {owner}"))))
    moment = now(session)
    unfinished = select(func.count()).where(Upload.owner == owner, Upload.expires_at > moment)
    if (session.scalar(unfinished) or 0) >= settings.max_open_uploads:
        raise TooManyUploadsError(
            f"At most {settings.max_open_uploads} uploads may be open at once. Finish one, or "
            "delete one.",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )
    upload = Upload(
        id=upload_id,
        owner=owner,
        name=name,
        user_metadata=metadata,
        length_bytes=length,
        received_bytes=0,
        idempotency_key=idempotency.key,
        request_sha256=idempotency.request_sha256,
        created_at=moment,
        expires_at=moment + timedelta(seconds=settings.upload_expire_seconds),
    )
    session.add(upload)
    session.flush()
    audit.about(session, "upload", upload.id, bytes=length)
    return upload


def get(session: Session, owner: str, upload_id: str) -> Upload:
    """An owner's upload. Raises NotFoundError, also for somebody else's, and GoneError."""
    upload = session.scalars(
        select(Upload).where(Upload.id == upload_id, Upload.owner == owner)
    ).one_or_none()
    if upload is None:
        raise NotFoundError("There is no such upload.")
    if upload.expires_at is not None and upload.expires_at <= now(session):
        raise GoneError("Nothing came for too long, and the upload has expired. Begin a new one.")
    return upload


def advance(session: Session, upload: Upload, received: int, settings: Settings) -> None:
    """Note that the first `received` bytes are durable. Raises GoneError when the row is gone."""
    audit.nothing(session)  # a piece; the upload's beginning and its dataset are noted
    expires = now(session) + timedelta(seconds=settings.upload_expire_seconds)
    _move(session, upload, received_bytes=received, expires_at=expires)


def finish(session: Session, upload: Upload, stored: Stored, settings: Settings) -> None:
    """Make the whole upload a dataset whose check is queued. Raises GoneError as `advance`."""
    dataset_id = service.new_dataset_id()
    service.create(
        session,
        dataset_id=dataset_id,
        owner=upload.owner,
        name=upload.name,
        upload=stored,
        idempotency=Idempotency(None, stored.sha256),
        settings=settings,
    )
    _move(session, upload, received_bytes=stored.bytes, expires_at=None, dataset_id=dataset_id)


def remove(database: Database, storage: Storage, upload_id: str) -> None:
    """Forget an upload; its bytes go with it, unless a dataset has them now. Raises LockedError."""
    with _held(storage, upload_id):
        drop(database, storage, upload_id)


def drop(
    database: Database, storage: Storage, upload_id: str, *, expired_only: bool = False
) -> bool:
    """As `remove`, for a caller that holds the part; whether there was one to forget."""
    unwanted = delete(Upload).where(Upload.id == upload_id)
    with database.write() as session:
        if expired_only:
            unwanted = unwanted.where(Upload.expires_at <= now(session))
        gone = session.execute(unwanted.returning(Upload.dataset_id)).one_or_none()
        if gone is not None:
            audit.about(session, "upload", upload_id, removed=True)
    if gone is not None and gone.dataset_id is None:
        storage.delete(part_key(upload_id))
    return gone is not None


def forget(database: Database, storage: Storage, seconds: float = service.DAY) -> int:
    """Remove expired uploads, and parts that nothing has spoken of for `seconds`; how many."""
    with database.read() as session:
        expired = session.scalars(select(Upload.id).where(Upload.expires_at <= now(session))).all()
        orphans = [key for key in storage.older_than(seconds, PARTS) if not _wanted(session, key)]
    removed = len(orphans)
    for key in orphans:
        storage.delete(key)
    for upload_id in expired:
        with suppress(LockedError), _held(storage, upload_id):  # more of it is just coming
            removed += drop(database, storage, upload_id, expired_only=True)
    return removed


@contextmanager
def _held(storage: Storage, upload_id: str) -> Iterator[None]:
    """Nobody else sends to an upload meanwhile. Raises LockedError; a lost part is no hindrance."""
    try:
        part = storage.part(part_key(upload_id))
    except FileNotFoundError:
        yield
        return
    try:
        yield
    finally:
        part.close()


def _wanted(session: Session, key: str) -> bool:
    upload = session.get(Upload, key.rpartition("/")[2])
    if upload is not None and upload.dataset_id is None:
        return True
    return session.scalar(select(Dataset.id).where(Dataset.upload_key == key)) is not None


def _move(session: Session, upload: Upload, **values: object) -> None:
    """Change a row that nobody else has changed since it was read. Raises GoneError."""
    moved = session.execute(
        update(Upload)
        .where(
            Upload.id == upload.id,
            Upload.received_bytes == upload.received_bytes,
            Upload.dataset_id.is_(None),
        )
        .values(values)
        .returning(Upload.id)
    ).one_or_none()
    if moved is None:
        raise GoneError("The upload was removed meanwhile. Begin a new one.")
    for name, value in values.items():
        setattr(upload, name, value)
