"""Runs a whole storm: what is measured in quiet first, then everything else side by side."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.storm import chaos, controls, latency, outages, procs, scenarios
from benchmarks.storm.arena import Arena, arena
from benchmarks.storm.fleet import MARK, Zygote
from benchmarks.storm.plan import Plan
from benchmarks.storm.real import Trainings
from benchmarks.storm.row import Row, conclude
from benchmarks.storm.services import Cable, Postgres, Redis

DEFAULTS: dict[str, Any] = {"lease_seconds": 60.0, "heartbeat_seconds": 10.0, "poll_seconds": 1.0}
TRIES = 3  # of a control: whether a stale worker writes before it notices is a matter of luck


@dataclass
class Found:
    """All that a storm has found."""

    plan: Plan
    storms: list[Row] = field(default_factory=list)
    scenarios: list[Row] = field(default_factory=list)
    controls: dict[str, Row] = field(default_factory=dict)
    idle: dict[str, dict[str, Any]] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)  # processes that outlived everything
    seconds: float = 0.0


Scenario = Callable[[], Row]


@dataclass
class Storm:
    """The parts that all arenas share."""

    plan: Plan
    root: Path
    zygote: Zygote
    postgres: Postgres
    progress: Progress

    @contextmanager
    def sqlite(self, name: str, **given: Any) -> Iterator[Arena]:
        """An arena of one machine."""
        with arena(f"{name}, SQLite", self.root, self.zygote, **given) as made:
            yield made

    @contextmanager
    def distributed(
        self, name: str, postgres: Postgres | None = None, **given: Any
    ) -> Iterator[tuple[Arena, Redis, Cable]]:
        """An arena with a broker of its own, behind a cable."""
        database_url = (postgres or self.postgres).schema()
        with Redis() as broker, Cable(broker.port) as cable:
            where = {"database_url": database_url, "broker_url": cable.url}
            with arena(f"{name}, Redis", self.root, self.zygote, **where, **given) as made:
                yield made, broker, cable

    def quiet(self, found: Found) -> None:
        """What needs an idle machine."""
        with (
            self.sqlite("idle", **DEFAULTS) as poller,
            self.distributed("idle", **DEFAULTS) as (celery, _, _),
            ThreadPoolExecutor() as pool,
        ):
            both = {"poller": poller, "redis": celery}
            waits = {n: pool.submit(latency.idle, a, self.plan.idle) for n, a in both.items()}
            found.idle = {name: wait.result() for name, wait in waits.items()}
            for name, each in both.items():
                found.starts[name] = latency.starts(each, self.plan.starts, self.plan.seed)
                each.close()
        given = {**DEFAULTS, "poll_seconds": 0.2}
        with self.distributed("cancel without broker", **given) as (each, broker, _):
            broker.kill()
            plan = self.plan
            row = scenarios.cancels(each, plan.cancels, plan.cancels_at_once, plan.cancel)
            found.scenarios.append(row)

    def storms(self) -> list[Scenario]:
        """The random part, in both arenas."""
        plan, half = self.plan, (self.plan.kills - self.plan.real) // 2
        kills = (half, plan.kills - plan.real - half)
        real = (plan.real - plan.real // 2, plan.real // 2)

        def sqlite() -> Row:
            with self.sqlite("storm") as each:
                return self._storm(each, kills[0], real[0])

        def distributed() -> Row:
            with self.distributed("storm") as (each, _, _):
                return self._storm(each, kills[1], real[1])

        return [sqlite, distributed]

    def _storm(self, each: Arena, kills: int, real: int) -> Row:
        plan, fleet, trainings = self.plan, each.fleet(), Trainings(each)
        seed = f"{plan.seed} {each.name}"
        bar = self.progress.add_task(f"{each.name}: kills", total=kills + real)

        def told() -> None:
            self.progress.advance(bar)

        def really() -> tuple[str, list[str]]:
            student = trainings.undisturbed()
            points = trainings.struck(told) if plan.real_points else []
            trainings.storm(max(0, real - len(points)), seed, told)
            return student, points

        fleet.keep(plan.workers)
        trainings.upload()
        with ThreadPoolExecutor(1) as pool:
            beside = pool.submit(really)
            given = {"kills": kills, "workers": plan.workers, "stalls": plan.stalls}
            chaos.storm(each, fleet, seed=seed, told=told, **given)
            student, points = beside.result()
        row = conclude(each, student=student, real_points=points)
        row.figures["workers"] = {
            "forked": fleet.started - fleet.programs,
            "programs": fleet.programs,
        }
        row.restarts = latency.restarts(each)
        return row

    def scenarios(self) -> list[Scenario]:
        """Everything that strikes on purpose, the longest first."""
        plan = self.plan

        def on_sqlite(name: str, act: Callable[[Arena], Row], **given: Any) -> Scenario:
            def scenario() -> Row:
                with self.sqlite(name, **given) as each:
                    return act(each)

            return scenario

        def on_redis(
            name: str, act: Callable[[Arena, Redis, Cable], Row], **given: Any
        ) -> Scenario:
            def scenario() -> Row:
                with self.distributed(name, **given) as (each, broker, cable):
                    return act(each, broker, cable)

            return scenario

        def restarted() -> Row:
            with Postgres() as own, self.distributed("database restarted", own) as (each, _, _):
                return outages.database_restarted(each, own, plan.restarts, 2.0)

        silent = {"poll_seconds": outages.NEVER}
        return [
            on_redis(
                "broker cut off",
                lambda a, b, c: outages.broker_cut_off(a, b, c, plan.away, plan.again),
                **silent,
            ),
            restarted,
            on_sqlite("database locked", lambda a: outages.database_locked(a, plan.restarts, 5.0)),
            on_sqlite("worker stopped", lambda a: scenarios.stalled(a, plan.gone)),
            on_redis("worker stopped", lambda a, *_: scenarios.stalled(a, plan.gone)),
            on_sqlite("always dying", scenarios.dying),
            on_redis("always dying", lambda a, *_: scenarios.dying(a)),
            on_sqlite("failpoints", scenarios.failpoints),
            on_redis("failpoints", lambda a, *_: scenarios.failpoints(a)),
            on_redis(
                "broker killed",
                lambda a, b, _: outages.broker_killed(a, b, 3.0, plan.again),
                **silent,
            ),
            on_redis(
                "broker flushed",
                lambda a, b, _: outages.broker_flushed(a, b),
                poll_seconds=DEFAULTS["poll_seconds"],
            ),
            on_sqlite("one key", lambda a: scenarios.crowd(a, 8, 100)),
            on_redis("one key", lambda a, *_: scenarios.crowd(a, 8, 100)),
        ]

    def control(self, guard: str) -> Row:
        """One guard switched off, until that is noticed."""
        for number in range(1, TRIES + 1):
            row = self._control(guard, f"without {guard} {number}")
            if controls.caught(guard, row):
                break
        return row

    def _control(self, guard: str, name: str) -> Row:
        if guard == "outbox":
            never = outages.NEVER
            with self.distributed(name, off=guard, poll_seconds=never) as (each, broker, _):
                return controls.outbox(each, broker)
        with self.sqlite(name, off=guard) as each:
            return controls.fencing(each) if guard == "fencing" else controls.lease(each, name)


def run(plan: Plan, root: Path, progress: Progress) -> Found:
    """The whole storm, below `root`."""
    found, began, mark = Found(plan), time.monotonic(), uuid.uuid4().hex
    with Postgres() as postgres:
        with Zygote(mark) as zygote:
            storm = Storm(plan, root, zygote, postgres, progress)
            bar = progress.add_task("idle workers, starts, cancels", total=1)
            storm.quiet(found)
            progress.advance(bar)
            _at_once(storm, found)
        time.sleep(1)
        found.left = [procs.named(pid) for pid in procs.marked(f"{MARK}={mark}")]
    found.seconds = round(time.monotonic() - began, 1)
    return found


def _at_once(storm: Storm, found: Found) -> None:
    acts, guards = storm.scenarios(), list(controls.CAUGHT_BY)
    bar = storm.progress.add_task("scenarios and controls", total=len(acts) + len(guards))

    def timed(act: Scenario) -> Row:
        began = time.monotonic()
        row = act()
        row.seconds = round(time.monotonic() - began, 1)
        if not storm.progress.console.is_terminal:  # where the bars can't be seen
            storm.progress.console.print(f"{row.name}: {row.seconds:.0f} s {row.verdict.caught}")
        return row

    def counted(act: Scenario) -> Row:
        row = timed(act)
        storm.progress.advance(bar)
        return row

    with ThreadPoolExecutor(2) as storms, ThreadPoolExecutor(storm.plan.lanes) as lanes:
        waiting = [storms.submit(timed, act) for act in storm.storms()]
        others = [lanes.submit(counted, act) for act in acts]
        off = {g: lanes.submit(counted, partial(storm.control, g)) for g in guards}
        found.scenarios += [each.result() for each in others]
        found.controls = {guard: each.result() for guard, each in off.items()}
        found.storms = [each.result() for each in waiting]
