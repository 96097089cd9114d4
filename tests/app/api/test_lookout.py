"""Looks at the database: on the loop where nobody waits for them, otherwise together on threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from app import main
from app.api import lookout
from app.api.lookout import Lookout
from app.settings import Settings


class Counted(ThreadPoolExecutor):
    """Counts the hops."""

    hops = 0

    def submit(self, fn: Any, /, *given: Any, **named: Any) -> Future[Any]:
        self.hops += 1
        return super().submit(fn, *given, **named)


@pytest.fixture
def threads() -> Iterator[Counted]:
    with Counted(4) as executor:
        yield executor


def thread_of() -> int:
    return threading.get_ident()


def test_a_file_is_looked_at_on_the_loop(threads: Counted) -> None:
    async def scene() -> None:
        assert await Lookout(threads, 3, here=True).at(thread_of) == threading.get_ident()

    asyncio.run(scene())
    assert threads.hops == 0


def test_a_stalling_disk_is_looked_at_on_threads_for_a_while(
    threads: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "CAUTIOUS_SECONDS", 0.3)

    async def scene() -> None:
        looks = Lookout(threads, 3, here=True)
        await looks.at(lambda: time.sleep(2 * lookout.STALL_SECONDS))
        assert await looks.at(thread_of) != threading.get_ident()
        await asyncio.sleep(0.4)
        assert await looks.at(thread_of) == threading.get_ident()

    asyncio.run(scene())


def test_what_comes_while_one_is_under_way_goes_together(threads: Counted) -> None:
    gate = threading.Event()

    async def scene() -> list[int]:
        looks = Lookout(threads, 1, here=False)
        first = asyncio.create_task(looks.at(gate.wait))
        await asyncio.sleep(0)
        rest = [asyncio.create_task(looks.at(partial(int, n))) for n in range(100)]
        await asyncio.sleep(0)
        gate.set()
        assert await first
        return list(await asyncio.gather(*rest))

    assert asyncio.run(scene()) == list(range(100))
    assert threads.hops == 2


def test_what_takes_its_time_holds_up_nobody_but_its_own(threads: Counted) -> None:
    gate = threading.Event()

    async def scene() -> None:
        looks = Lookout(threads, 2, here=False)
        stuck = asyncio.create_task(looks.at(gate.wait))
        await asyncio.sleep(2 * lookout.SLOW_SECONDS)
        assert await looks.at(lambda: "past") == "past"
        gate.set()
        await stuck

    asyncio.run(scene())


def test_what_comes_right_behind_a_slow_one_isnt_held_up_by_it(threads: Counted) -> None:
    gate = threading.Event()

    async def scene() -> None:
        looks = Lookout(threads, 2, here=False)
        stuck = asyncio.create_task(looks.at(gate.wait))
        await asyncio.sleep(0)
        assert await looks.at(lambda: "past") == "past"  # and nobody else comes
        gate.set()
        await stuck

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("changed", "near"),
    [
        ({}, True),
        ({"broker_url": "redis://127.0.0.1:1/0"}, False),  # which requests are counted in
        ({"database_url": "postgresql+psycopg://127.0.0.1:1/tdmr"}, False),
    ],
)
def test_the_loop_never_waits_for_a_network(
    settings: Settings, changed: dict[str, str], near: bool
) -> None:
    assert main._is_near(settings.model_copy(update=changed)) is near


@pytest.mark.parametrize("here", [True, False])
def test_each_hears_of_its_own_error(threads: Executor, here: bool) -> None:
    def fail() -> None:
        raise LookupError("mine")

    async def scene() -> list[Any]:
        looks = Lookout(threads, 1, here=here)
        asked = [looks.at(lambda: 1), looks.at(fail), looks.at(lambda: 2)]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    one, error, two = asyncio.run(scene())
    assert (one, str(error), two) == (1, "mine", 2)


def test_whoever_goes_away_takes_nobody_along(threads: Counted) -> None:
    gate = threading.Event()

    async def scene() -> str:
        looks = Lookout(threads, 1, here=False)
        gone = asyncio.create_task(looks.at(gate.wait))
        await asyncio.sleep(0)
        other = asyncio.create_task(looks.at(lambda: "there"))
        await asyncio.sleep(0)
        gone.cancel()
        gate.set()
        return await other

    assert asyncio.run(scene()) == "there"
