"""What pages show of things that change: looked at once a second, however many tabs show it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

import structlog
from nicegui import Client

from app.dashboard.inside import RefusedError
from app.dashboard.paths import SIGN_IN

T = TypeVar("T")
Load = Callable[[], Awaitable[T]]
Show = Callable[[T], None]

ROUND_SECONDS = 1.0

log = structlog.get_logger(__name__)


@dataclass
class _Topic(Generic[T]):
    """One thing that is watched: how to look at it, what was seen last, and who is told."""

    load: Load[T]
    every: int
    seen: T | None = None
    tabs: dict[str, tuple[Client, list[Show[T]]]] = field(default_factory=dict)


class Live:
    """Looks at what somebody watches; without anybody it does nothing. Belongs to one loop."""

    def __init__(self) -> None:
        self._topics: dict[Hashable, _Topic[Any]] = {}
        self._task: asyncio.Task[None] | None = None

    async def watch(
        self, client: Client, topic: Hashable, load: Load[T], show: Show[T], every: int = 1
    ) -> None:
        """Call `show` with what `load` gives, now and in each `every`-th round that it changed in.

        `topic` names what is looked at, and by whom: tabs that say the same share one look. It
        ends with the tab. Raises what `load` raises when nobody has looked yet.
        """
        found = self._topics.get(topic)
        if found is None:
            found = _Topic(load, every, await load())
            found = cast("_Topic[T]", self._topics.setdefault(topic, found))
        _, shows = found.tabs.setdefault(client.id, (client, []))
        shows.append(show)
        show(cast("T", found.seen))
        client.on_delete(lambda: self._leave(topic, client.id))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._rounds())

    def _leave(self, topic: Hashable, client_id: str) -> None:
        found = self._topics.get(topic)
        if found is not None:
            found.tabs.pop(client_id, None)
            if not found.tabs:
                del self._topics[topic]

    async def _rounds(self) -> None:
        number = 0
        while self._topics:
            await asyncio.sleep(ROUND_SECONDS)
            number += 1
            due = [topic for topic in self._topics.values() if number % topic.every == 0]
            for topic in due:
                await _look(topic)

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()


async def _look(topic: _Topic[Any]) -> None:
    try:
        seen = await topic.load()
    except RefusedError as refused:
        if refused.problem.status == 401:  # the key, or the session, is over
            for client, _ in list(topic.tabs.values()):
                client.open(SIGN_IN)
        return
    except Exception as error:  # the next round looks again; pages keep what they showed
        log.info("not_seen", error=str(error), kind=type(error).__name__)
        return
    if seen == topic.seen:
        return
    topic.seen = seen
    for client, shows in list(topic.tabs.values()):
        with client:
            for show in shows:
                show(seen)
