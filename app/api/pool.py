"""The bounds of prediction: how many requests are taken, how many are worked on, and for how long.

The work is done in threads of the pool's own, so that it holds up neither the event loop nor the
other routes. A thread can't be ended from outside: it is told to stop, and stops between two steps
of the network (onnxruntime's RunOptions.terminate); its place is free when it really has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio import lowlevel, to_thread
from starlette.requests import ClientDisconnect, Request

from app.errors import BusyError, PredictionTimeoutError
from app.settings import Settings
from app.students.sessions import Sessions, Stop, StoppedError

if TYPE_CHECKING:
    from app.students.network import Network

Value = TypeVar("Value")


class Pool:
    """One for a server."""

    def __init__(self, settings: Settings) -> None:
        at_once = settings.max_predictions
        self.sessions: Sessions[Network] = Sessions(settings.max_sessions)
        self._places = at_once + settings.max_waiting_predictions
        self._turns = anyio.Semaphore(at_once)
        self._threads = anyio.CapacityLimiter(at_once)
        self._wait_seconds = settings.prediction_wait_seconds
        self._seconds = settings.prediction_seconds

    @contextmanager
    def place(self) -> Iterator[None]:
        """Room for one more request and its images in memory. Raises BusyError."""
        if not self._places:
            raise BusyError("Too many predictions are asked for at once. Try again.")
        self._places -= 1
        try:
            yield
        finally:
            self._places += 1

    async def work(self, request: Request, action: Callable[[Stop], Value]) -> Value:
        """What `action` gives, which runs in a thread when it's this request's turn.

        `request` is one whose body has been read. Raises BusyError when the turn doesn't come,
        PredictionTimeoutError, and ClientDisconnect when nobody waits for the answer any more.
        """
        try:
            with anyio.fail_after(self._wait_seconds):
                await self._turns.acquire()
        except TimeoutError:
            raise BusyError(
                f"Other predictions took all of {self._wait_seconds:g} seconds. Try again."
            ) from None
        try:
            return await self._in_thread(request, action)
        finally:
            self._turns.release()

    async def _in_thread(self, request: Request, action: Callable[[Stop], Value]) -> Value:
        stop = Stop()
        gone = False

        async def watch() -> None:
            nonlocal gone
            try:
                with anyio.move_on_after(self._seconds):
                    await _disconnect(request)
                    gone = True
            finally:
                stop()  # when this server is ended, too: it waits for its threads

        try:
            return await _beside(watch, partial(self._run, action, stop))
        except StoppedError:
            await lowlevel.checkpoint_if_cancelled()  # neither: the server ends
            if gone:
                raise ClientDisconnect from None
            raise PredictionTimeoutError(
                f"It took more than {self._seconds:g} seconds. Send fewer or smaller images."
            ) from None

    async def _run(self, action: Callable[[Stop], Value], stop: Stop) -> Value:
        return await to_thread.run_sync(action, stop, limiter=self._threads)


async def _beside(
    watch: Callable[[], Coroutine[Any, Any, None]], action: Callable[[], Awaitable[Value]]
) -> Value:
    """What `action` gives or raises; `watch` runs meanwhile, and ends with it."""
    found: list[Value] = []
    failed: list[Exception] = []  # to be raised as it is: a group would wrap it
    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            found.append(await action())
        except Exception as error:  # raised again below, outside the group
            failed.append(error)
        group.cancel_scope.cancel()
    if failed:
        raise failed[0]
    return found[0]


async def _disconnect(request: Request) -> None:
    """Wait until the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
