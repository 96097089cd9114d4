"""Live pages: one look for all tabs, and curves that stay small."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from nicegui import Client

from app.api.problems import Problem
from app.dashboard import live
from app.dashboard.curves import MOST_POINTS, Curve, JobLog
from app.dashboard.inside import RefusedError
from app.dashboard.live import Live
from app.dashboard.visit import Visit
from tdmr.wire.base import Page
from tdmr.wire.jobs import EventOut

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Tab:
    """A tab as `Live` sees one."""

    def __init__(self, name: str) -> None:
        self.id, self.opened = name, list[str]()
        self._leave: list[Callable[[], None]] = []

    def on_delete(self, handler: Callable[[], None]) -> None:
        self._leave.append(handler)

    def open(self, target: str) -> None:
        self.opened.append(target)

    def close(self) -> None:
        for handler in self._leave:
            handler()

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def client(self) -> Client:
        return cast("Client", self)


class Clock:
    """Something that changes when it's told to, and counts how often it's looked at."""

    def __init__(self) -> None:
        self.value, self.looks = 0, 0
        self.trouble: Exception | None = None

    async def look(self) -> int:
        self.looks += 1
        if self.trouble is not None:
            raise self.trouble
        return self.value


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "ROUND_SECONDS", 0.02)


async def until(ready: Callable[[], bool]) -> None:
    for _ in range(3000):
        if ready():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never was")


def test_many_tabs_share_one_look_and_hear_of_changes_alone() -> None:
    async def main() -> None:
        shared, clock = Live(), Clock()
        shown: list[list[int]] = [[] for _ in range(20)]
        tabs = [Tab(str(number)) for number in range(20)]
        for tab, seen in zip(tabs, shown, strict=True):
            await shared.watch(tab.client, "topic", clock.look, seen.append)
        assert clock.looks == 1
        clock.value = 7
        await until(lambda: all(len(seen) == 2 for seen in shown))
        looks = clock.looks
        await until(lambda: clock.looks > looks + 3)
        assert shown == [[0, 7]] * 20
        for tab in tabs:
            tab.close()
        await asyncio.sleep(0.1)
        looks = clock.looks
        await asyncio.sleep(0.1)
        assert clock.looks == looks  # nobody is there any more
        await shared.close()

    asyncio.run(main())


def test_trouble_passes_and_pages_keep_what_they_showed() -> None:
    async def main() -> None:
        shared, clock, tab = Live(), Clock(), Tab("a")
        seen: list[int] = []
        await shared.watch(tab.client, "topic", clock.look, seen.append)
        clock.trouble = RuntimeError("the database is away")
        looks = clock.looks
        await until(lambda: clock.looks > looks + 2)
        clock.trouble, clock.value = None, 5
        await until(lambda: len(seen) == 2)
        assert (seen, tab.opened) == ([0, 5], [])
        await shared.close()

    asyncio.run(main())


def test_a_key_that_is_over_leads_to_the_form() -> None:
    async def main() -> None:
        shared, clock, tab = Live(), Clock(), Tab("a")
        await shared.watch(tab.client, "topic", clock.look, lambda _: None)
        problem = Problem(
            type="", title="", status=401, detail="", instance="", code="unauthorized",
            request_id="", errors=[],
        )  # fmt: skip
        clock.trouble = RefusedError(problem)
        await until(lambda: bool(tab.opened))
        assert tab.opened[0] == "/sign-in"
        await shared.close()

    asyncio.run(main())


def test_a_curve_stays_small_and_keeps_its_shape() -> None:
    curve = Curve()
    for step in range(100_000):
        curve.add(step, step / 2)
    assert MOST_POINTS / 4 < len(curve.points) <= MOST_POINTS
    assert curve.points[0] == (0, 0.0)
    assert all(y == x / 2 for x, y in curve.points)
    gaps = {b[0] - a[0] for a, b in zip(curve.points, curve.points[1:], strict=False)}
    assert len(gaps) == 1


def test_a_step_that_is_done_again_begins_the_curve_anew_from_there() -> None:
    curve = Curve()
    for step in (10, 20, 30, 20, 30):
        curve.add(step, float(step))
    assert curve.points == [(10, 10.0), (20, 20.0), (30, 30.0)]


class Story:
    """A visit whose API tells a job's log in pieces."""

    def __init__(self, events: list[EventOut]) -> None:
        self._events = events

    async def get(self, _: type[Any], __: str, *, after: str | None, limit: int) -> Page[EventOut]:
        start = int(after or 0)
        found = self._events[start : start + limit]
        more = start + limit < len(self._events)
        return Page(data=found, has_more=more, next_cursor=str(start + len(found)))


def event(seq: int, type_: str, **data: Any) -> EventOut:
    return EventOut(seq=seq, at=START + timedelta(seconds=seq), type=type_, data=data)


def test_a_log_becomes_curves_and_lines_and_is_read_on() -> None:
    stage = {"name": "distil", "index": 4, "count": 7, "progress": 0.1}
    events = [
        event(1, "submitted"),
        event(2, "progress", stage={**stage, "name": "prepare"}),
        *(
            event(seq, "progress", stage=stage, step=10 * seq, losses={"loss": 1 / seq},
                  measures={"accuracy": 0.5, "learning_rate": 0.001})
            for seq in range(3, 150)
        ),
        event(150, "failed", failure={"detail": "no more"}),
    ]  # fmt: skip
    log, visit = JobLog("job_1", 32), cast("Visit", Story(events))
    assert asyncio.run(log.read(visit)) == 150
    assert asyncio.run(log.read(visit)) == 150
    curves = log.shown("distil")
    assert list(curves) == ["loss", "accuracy", "learning_rate", "images per second"]
    assert curves["loss"][0] == (30, 0.333333)
    assert len(curves["loss"]) == 147
    assert {speed for _, speed in curves["images per second"]} == {320.0}  # 10 steps of 32 a second
    assert log.shown("distil", ("accuracy",)) == {"accuracy": curves["accuracy"]}
    assert log.shown("scratch") == {}
    assert log.lines == ["03:04:06  submitted", "03:06:35  failed no more"]
