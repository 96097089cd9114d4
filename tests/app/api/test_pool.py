"""The pool's threads: told to stop whatever ends their request, and free when they have."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from starlette.requests import ClientDisconnect, Request

from app.api.pool import Pool
from app.errors import BusyError, PredictionTimeoutError
from app.settings import Settings
from app.students.sessions import Stop


class Client:
    """Waits for its answer, until it is gone."""

    def __init__(self) -> None:
        self.gone = anyio.Event()

    @property
    def request(self) -> Request:
        return Request({"type": "http"}, self._receive)

    async def _receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}


class Work:
    """Goes on until it's told to stop."""

    def __init__(self) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()

    def __call__(self, stop: Stop) -> None:
        self.begun.set()
        try:
            while True:
                stop.check()
                self.ended.wait(0.01)
        finally:
            self.ended.set()


def trial(body: Callable[[Pool], Awaitable[None]], **settings: Any) -> None:
    """Run `body` with a pool of one thread, which is free again afterwards."""

    async def main() -> None:
        pool = Pool(Settings(max_predictions=1, max_waiting_predictions=0, **settings))
        with anyio.fail_after(60):
            await body(pool)
            assert await pool.work(Client().request, lambda stop: "free") == "free"

    anyio.run(main)


def test_what_it_gives_and_raises_comes_as_it_is() -> None:
    async def body(pool: Pool) -> None:
        assert await pool.work(Client().request, lambda stop: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await pool.work(Client().request, lambda stop: 1 // 0)

    trial(body)


def test_a_client_that_goes_away() -> None:
    async def body(pool: Pool) -> None:
        client, work = Client(), Work()

        async def go() -> None:
            await anyio.to_thread.run_sync(work.begun.wait)
            client.gone.set()

        async with anyio.create_task_group() as group:
            group.start_soon(go)
            with pytest.raises(ClientDisconnect):
                await pool.work(client.request, work)
        assert work.ended.is_set()

    trial(body)


def test_work_that_takes_too_long() -> None:
    async def body(pool: Pool) -> None:
        work = Work()
        with pytest.raises(PredictionTimeoutError, match=r"more than 0\.1 seconds"):
            await pool.work(Client().request, work)
        assert work.ended.is_set()

    trial(body, prediction_seconds=0.1)


def test_a_server_that_ends() -> None:
    """It cancels what it works on, and waits for the threads."""

    async def body(pool: Pool) -> None:
        work = Work()
        with anyio.move_on_after(0.1) as scope:
            await pool.work(Client().request, work)
        assert scope.cancelled_caught
        assert work.ended.is_set()

    trial(body)


def test_a_turn_that_doesnt_come() -> None:
    async def body(pool: Pool) -> None:
        first, work = Client(), Work()

        async def ask() -> None:
            with pytest.raises(ClientDisconnect):
                await pool.work(first.request, work)

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.to_thread.run_sync(work.begun.wait)
            with pytest.raises(BusyError):
                await pool.work(Client().request, lambda stop: None)
            first.gone.set()

    trial(body, prediction_wait_seconds=0.1)


def test_places_are_counted() -> None:
    async def body(pool: Pool) -> None:
        with pool.place(), pytest.raises(BusyError), pool.place():
            raise AssertionError
        with pool.place():
            pass

    trial(body)
