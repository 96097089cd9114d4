"""Keeps a job's checkpoints in storage, so that any worker can go on with it."""

from __future__ import annotations

from contextlib import suppress

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.db import Database
from app.errors import DamagedFileError, DiskFullError, StorageUnavailableError
from app.jobs import ledger
from app.jobs.claims import Checkpoint, CheckpointFile, Claim
from app.storage import Storage
from tdmr import failpoint
from tdmr.jobdir import JobDir, ProgressLine

log = structlog.get_logger(__name__)


def prefix(job_id: str) -> str:
    """Where the checkpoints of a job are stored."""
    return f"checkpoints/{job_id}"


class Keeper:
    """The checkpoints of one claim: what it begins with, and what it adds."""

    def __init__(self, database: Database, storage: Storage, claim: Claim) -> None:
        self._database, self._storage, self._claim = database, storage, claim
        self._count = 0
        stored = claim.checkpoint
        self._last = None if stored is None else Checkpoint.model_validate(stored)

    def restore(self, job: JobDir) -> None:
        """Fetch what an earlier attempt left; what is missing or damaged is begun again."""
        if self._last is None:
            return
        if not fetch(self._storage, self._last, job):
            self._last = None

    def keep(self, job: JobDir, line: ProgressLine) -> None:
        """Store the checkpoint that `line` speaks of, then point to it. Raises LeaseLostError.

        Where there is no room, no store or no database, the one before it still stands.
        """
        assert line.checkpoint is not None
        assert line.stage is not None
        self._count += 1
        claim, name = self._claim, line.checkpoint
        key = f"{prefix(claim.job_id)}/{claim.attempt}-{self._count}-{name}"
        try:
            stored = self._storage.put(key, job.checkpoint / name)
        except (FileNotFoundError, DiskFullError, StorageUnavailableError) as error:
            # A file that is gone: a later one has come.
            log.warning("checkpoint_not_kept", name=name, error=str(error))
            return
        failpoint.reached("checkpoint.stored")
        file = CheckpointFile(name=name, **vars(stored))
        before = self._last.files if self._last else {}
        files = {**before, line.stage.name: file}
        checkpoint = Checkpoint(stage=line.stage.name, step=line.step or 0, files=files)
        try:
            with self._database.write() as session:
                ledger.save_checkpoint(session, claim, checkpoint)
        except SQLAlchemyError as error:
            # The commit may have gone through: if it hasn't, the file is the collector's.
            log.warning("checkpoint_not_kept", name=name, error=str(error))
            return
        failpoint.reached("checkpoint.committed")
        self._last = checkpoint
        replaced = before.get(line.stage.name)
        # A retried job begins with the files of another, which stay that one's.
        if replaced is not None and replaced.key.startswith(prefix(claim.job_id) + "/"):
            self._forget(replaced.key)

    def _forget(self, key: str) -> None:
        try:
            self._storage.delete(key)
        except StorageUnavailableError as error:  # the file is the collector's then
            log.warning("checkpoint_not_deleted", key=key, error=str(error))


def fetch(storage: Storage, checkpoint: Checkpoint, job: JobDir) -> bool:
    """Put the files into JOB_DIR/checkpoint; False, and none of them, if one isn't what it was."""
    job.checkpoint.mkdir(exist_ok=True)
    for file in checkpoint.files.values():
        target = job.checkpoint / file.name
        with suppress(FileNotFoundError, DamagedFileError):
            storage.fetch(file.key, target, file.sha256)
            continue
        log.error("checkpoint_damaged", key=file.key)
        for path in job.checkpoint.iterdir():
            path.unlink()
        return False
    return True
