"""When keys were last used: noted in memory by each request, written down beside them.

One thread writes once in a while for all keys that were used since, in one short transaction. So
no request waits for a write, and SQLite's only writer is kept for a moment a minute.
"""

from __future__ import annotations

import threading

import structlog
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from app.db import Database, utcnow
from app.models import ApiKey

INTERVAL_SECONDS = 60.0

log = structlog.get_logger(__name__)


class Usage:
    """The keys that were used since the last writing."""

    def __init__(self, database: Database, interval: float = INTERVAL_SECONDS) -> None:
        self._database = database
        self._interval = interval
        self._used: set[str] = set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def seen(self, key_id: str) -> None:
        """A key was used. Never blocks."""
        self._used.add(key_id)

    def start(self) -> None:
        """Begin to write down."""
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what was seen is written first."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def flush(self) -> None:
        """Write down what was seen; to be tried again later where the database refuses."""
        used: set[str] = set()
        while self._used:  # one by one: requests go on adding
            used.add(self._used.pop())
        if not used:
            return
        try:
            with self._database.write() as session:
                session.execute(
                    update(ApiKey)
                    .where(ApiKey.id.in_(used))
                    .values(last_used_at=utcnow())
                    .execution_options(synchronize_session=False)
                )
        except SQLAlchemyError as error:
            log.warning("usage_not_written", error=str(error))
            self._used |= used

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self.flush()
        self.flush()
