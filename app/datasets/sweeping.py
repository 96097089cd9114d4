"""Unfinished uploads in this server's own data folder, where files go into an object store.

Workers collect what lies in the store; parts lie here until they are whole.
"""

from __future__ import annotations

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.datasets import resumable
from app.db import Database
from app.errors import StorageUnavailableError
from app.settings import Settings
from app.storage import Storage

log = structlog.get_logger(__name__)


class PartsSweep:
    """A thread that forgets what has expired, as often as workers collect."""

    def __init__(self, database: Database, storage: Storage, settings: Settings) -> None:
        self._database, self._storage, self._settings = database, storage, settings
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, where there is an object store."""
        if self._settings.storage_url is not None:
            self._thread = threading.Thread(target=self._run, name="parts", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.collect_seconds):
            try:
                resumable.forget(self._database, self._storage)
            except (SQLAlchemyError, StorageUnavailableError) as error:
                log.warning("parts_not_swept", error=str(error))
