"""Short looks at the database, with as few hops to a thread as can be.

A hop there and back costs more than what it is for: the threads of one interpreter take turns, and
each change of turns costs. A file on this machine is looked at without one: readers of SQLite's
write-ahead log wait for nobody. A server elsewhere is asked on threads, and what comes while one
is busy goes along with the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")
Look = Callable[[], Any]
Asked = list[tuple[Look, "asyncio.Future[Any]"]]
Outcomes = list[tuple[Any, BaseException | None]]

SLOW_SECONDS = 0.01  # after which a look under way is waited for no longer
STALL_SECONDS = 0.1  # what no look on the loop takes unless the disk stalls
CAUTIOUS_SECONDS = 30.0  # on threads, after such a one


class Lookout:
    """Carries out looks, on `lanes` threads of `executor` unless `here`. Belongs to one loop."""

    def __init__(self, executor: Executor, lanes: int, *, here: bool) -> None:
        self._executor, self._lanes = executor, lanes
        self._here_from = 0.0 if here else float("inf")  # the loop's time
        self._waiting: Asked = []
        self._begun: list[float] = []  # when each of those that are under way was

    async def at(self, look: Callable[[], T]) -> T:
        """What `look` gives or raises. It must be short, and may run on any thread."""
        loop = asyncio.get_running_loop()
        if (now := loop.time()) >= self._here_from:
            try:
                return look()
            finally:
                if loop.time() - now > STALL_SECONDS:
                    self._here_from = loop.time() + CAUTIOUS_SECONDS
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append((look, future))
        if self._may_begin(now):
            self._begin(loop)
        elif len(self._waiting) == 1:  # it waits no longer than that for one that is slow
            loop.call_later(2 * SLOW_SECONDS, self._go_on, loop)
        return await future

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting and self._may_begin(loop.time()):
            self._begin(loop)

    def _may_begin(self, now: float) -> bool:
        """With nothing under way; or with what takes its time, on another lane."""
        if not self._begun:
            return True
        return len(self._begun) < self._lanes and now - self._begun[-1] > SLOW_SECONDS

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        asked, self._waiting = self._waiting, []
        begun = loop.time()
        self._begun.append(begun)

        def done(under_way: asyncio.Future[Outcomes]) -> None:
            self._begun.remove(begun)
            _tell(asked, under_way)
            self._go_on(loop)

        looks = [look for look, _ in asked]
        loop.run_in_executor(self._executor, _carry_out, looks).add_done_callback(done)


def _carry_out(looks: list[Look]) -> Outcomes:
    outcomes: Outcomes = []
    for look in looks:
        try:
            outcomes.append((look(), None))
        except BaseException as error:  # whoever asked for it hears of it
            outcomes.append((None, error))
    return outcomes


def _tell(asked: Asked, under_way: asyncio.Future[Outcomes]) -> None:
    if under_way.cancelled():
        for _, future in asked:
            future.cancel()
        return
    for (_, future), (outcome, error) in zip(asked, under_way.result(), strict=True):
        if future.done():  # whoever asked is gone
            continue
        if error is None:
            future.set_result(outcome)
        else:
            future.set_exception(error)
