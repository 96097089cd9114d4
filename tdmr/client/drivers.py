"""Who carries operations out (`tdmr.client.steps`): one by blocking, one by awaiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

import httpx

from tdmr.client.steps import Done, Emit, Open, Pause, Read, Send, Step, Steps, Work

T = TypeVar("T")


class Blocking:
    """Carries operations out by blocking."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def run(self, operation: Steps[T]) -> T:
        """The operation's result."""
        (done,) = (each for each in self._drive(operation) if isinstance(each, Done))
        return done.value

    def each(self, operation: Steps[None]) -> Iterator[Any]:
        """What the operation emits."""
        for each in self._drive(operation):
            if isinstance(each, Emit):
                yield each.value

    def _drive(self, operation: Steps[T]) -> Iterator[Emit | Done[T]]:
        hand = _Hand(self._http)
        go_on: Callable[[], Step] = partial(operation.send, None)
        try:
            while True:
                try:
                    step = go_on()
                except StopIteration as end:
                    yield Done(end.value)
                    return
                try:
                    if isinstance(step, Emit):
                        yield step
                    go_on = partial(operation.send, hand.do(step))
                except BaseException as error:  # the operation decides what follows from it
                    go_on = partial(operation.throw, error)
        finally:
            operation.close()
            hand.close()


class _Hand:
    """Does single steps; holds what was opened last."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._opened: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def do(self, step: Step) -> Any:
        match step:
            case Send(call):
                return self._http.send(call.request(self._http))
            case Open(call):
                return self._open(call.request(self._http))
            case Read():
                return next(self._chunks, b"")
            case Pause(seconds):
                time.sleep(seconds)
            case Work(do):
                return do()
        return None

    def _open(self, request: httpx.Request) -> httpx.Response:
        self.close()
        self._opened = response = self._http.send(request, stream=True, follow_redirects=True)
        if response.is_error:
            response.read()
        self._chunks = response.iter_bytes()
        return response

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


class Awaiting:
    """Carries operations out by awaiting (asyncio); what blocks is done in threads."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def run(self, operation: Steps[T]) -> T:
        """The operation's result."""
        async with aclosing(self._drive(operation)) as driven:
            (done,) = [each async for each in driven if isinstance(each, Done)]
        return done.value

    async def each(self, operation: Steps[None]) -> AsyncIterator[Any]:
        """What the operation emits."""
        async with aclosing(self._drive(operation)) as driven:
            async for each in driven:
                if isinstance(each, Emit):
                    yield each.value

    async def _drive(self, operation: Steps[T]) -> AsyncGenerator[Emit | Done[T], None]:
        hand = _AsyncHand(self._http)
        go_on: Callable[[], Step] = partial(operation.send, None)
        try:
            while True:
                try:
                    step = go_on()
                except StopIteration as end:
                    yield Done(end.value)
                    return
                try:
                    if isinstance(step, Emit):
                        yield step
                    go_on = partial(operation.send, await hand.do(step))
                except BaseException as error:  # the operation decides what follows from it
                    go_on = partial(operation.throw, error)
        finally:
            operation.close()
            await hand.close()


class _AsyncHand:
    """Does single steps; holds what was opened last."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._opened: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def do(self, step: Step) -> Any:
        match step:
            case Send(call):
                return await self._http.send(call.request(self._http))
            case Open(call):
                return await self._open(call.request(self._http))
            case Read():
                return await anext(self._chunks, b"") if self._chunks is not None else b""
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Work(do):
                return await asyncio.to_thread(do)
        return None

    async def _open(self, request: httpx.Request) -> httpx.Response:
        await self.close()
        response = await self._http.send(request, stream=True, follow_redirects=True)
        self._opened = response
        if response.is_error:
            await response.aread()
        self._chunks = response.aiter_bytes()
        return response

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()
