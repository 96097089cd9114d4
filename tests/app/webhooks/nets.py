"""Networks for webhooks: resolvers that answer as told, connections that are noted."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpcore
from httpcore import AsyncNetworkBackend, AsyncNetworkStream

from app.webhooks.addresses import Guard, Resolve
from app.webhooks.network import Network

PUBLIC = "93.184.215.14"


class Names:
    """A resolver: each lookup gets the next answer, the last one for ever; lookups are noted."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if not answer:
            raise OSError("no such name")
        return answer


class Wire(AsyncNetworkBackend):
    """Connects where it's told, but to another port; or, without one, to nobody. It is noted."""

    def __init__(self, port: int | None = None) -> None:
        self._port, self._real = port, httpcore.AnyIOBackend()
        self.connected: list[str] = []
        self.streams: list[AsyncNetworkStream] = []

    async def connect_tcp(self, host: str, port: int, *more: Any) -> AsyncNetworkStream:
        self.connected.append(host)
        if self._port is None:
            raise httpcore.ConnectError("nobody is there")
        self.streams.append(await self._real.connect_tcp(host, self._port, *more))
        return self.streams[-1]


def nowhere() -> Network:
    """Every name is public, and nobody is there."""
    return Network(Guard(Names([PUBLIC])), Wire())


def network(resolver: Resolve, wire: Wire, *, private: bool = False) -> Network:
    """A network of these parts."""
    return Network(Guard(resolver, private=private), wire)


_watching: list[list[Any]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        for heard in _watching:
            heard.append(arguments[1])


_hook: list[Callable[..., None]] = []


@contextlib.contextmanager
def connects() -> Iterator[list[Any]]:
    """The addresses of every connect that this process asks the system for meanwhile."""
    if not _hook:
        sys.addaudithook(_hear)  # for ever: Python has no way to take one back
        _hook.append(_hear)
    heard: list[Any] = []
    _watching.append(heard)
    try:
        yield heard
    finally:
        _watching.remove(heard)
