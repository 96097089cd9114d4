"""Waiting for a job's log to grow: one question a round, for everybody who waits."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from app.db import Database
from app.models import Event

ROUND_SECONDS = 0.5
AT_ONCE = 500  # jobs in one question

log = structlog.get_logger(__name__)


class Watch:
    """Looks after the jobs that somebody waits for; without any it does nothing.

    Belongs to one event loop. Whoever writes the log may be any process on any machine, so that
    only the database knows of it.
    """

    def __init__(self, database: Database, readers: Executor) -> None:
        self._database, self._readers = database, readers
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._beyond: dict[asyncio.Future[None], int] = {}
        self._task: asyncio.Task[None] | None = None
        self.closed = False

    async def last(self, job_id: str) -> int:
        """The number of a job's newest entry, 0 without any."""
        found = await self._ask([job_id])
        return found.get(job_id, 0)

    async def beyond(self, job_id: str, seq: int, seconds: float) -> bool:
        """Wait until the log goes beyond entry `seq`, but not for longer; whether it does.

        Gives False at once when the server is about to stop.
        """
        if self.closed:
            return False
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, set()).add(waiter)
        self._beyond[waiter] = seq
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._forget(job_id, waiter)
        return not self.closed

    def close(self) -> None:
        """Let everybody go who waits: the server is about to stop."""
        self.closed = True
        for waiter in self._beyond:
            if not waiter.done():
                waiter.set_result(None)

    def _forget(self, job_id: str, waiter: asyncio.Future[None]) -> None:
        del self._beyond[waiter]
        self._waiting[job_id].discard(waiter)
        if not self._waiting[job_id]:
            del self._waiting[job_id]

    async def _run(self) -> None:
        while self._waiting and not self.closed:
            try:
                found = await self._ask(list(self._waiting))
            except SQLAlchemyError as error:
                log.warning("database_unreachable", during="watch", error=str(error))
                found = {}
            for job_id, seq in found.items():
                for waiter in self._waiting.get(job_id, ()):
                    if seq > self._beyond[waiter] and not waiter.done():
                        waiter.set_result(None)
            await asyncio.sleep(ROUND_SECONDS)

    async def _ask(self, job_ids: list[str]) -> dict[str, int]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._look, job_ids)

    def _look(self, job_ids: list[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        with self._database.read() as session:
            for start in range(0, len(job_ids), AT_ONCE):
                some = job_ids[start : start + AT_ONCE]
                newest = select(Event.job_id, func.max(Event.seq)).where(Event.job_id.in_(some))
                rows = session.execute(newest.group_by(Event.job_id))
                found |= {job_id: seq for job_id, seq in rows}  # noqa: C416 - rows aren't tuples
        return found
