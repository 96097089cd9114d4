"""What a storm is made of: each part with the arena that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.storm import chaos, controls, latency, outages, scenarios
from benchmarks.storm.arena import Arena, arena
from benchmarks.storm.fleet import Zygote
from benchmarks.storm.plan import Plan
from benchmarks.storm.real import Trainings
from benchmarks.storm.row import Row, conclude
from benchmarks.storm.services import Cable, Postgres, Redis

DEFAULTS: dict[str, Any] = {"lease_seconds": 60.0, "heartbeat_seconds": 10.0, "poll_seconds": 1.0}
BEATS_PER_LEASE = 6  # as in the defaults
TRIES = 3  # of a control: whether a stale worker writes before it notices is a matter of luck

Scenario = Callable[[], Row]


@dataclass
class Program:
    """The parts that all arenas share."""

    plan: Plan
    root: Path
    zygote: Zygote
    postgres: Postgres
    progress: Progress

    @property
    def _short(self) -> dict[str, Any]:
        """A lease that can be outwaited."""
        lease = self.plan.lease
        return {"lease_seconds": lease, "heartbeat_seconds": lease / BEATS_PER_LEASE}

    @contextmanager
    def sqlite(self, name: str, **given: Any) -> Iterator[Arena]:
        """An arena of one machine."""
        with arena(f"{name}, SQLite", self.root, self.zygote, **{**self._short, **given}) as made:
            yield made

    @contextmanager
    def distributed(
        self, name: str, postgres: Postgres | None = None, **given: Any
    ) -> Iterator[tuple[Arena, Redis, Cable]]:
        """An arena with a broker of its own, behind a cable."""
        database_url = (postgres or self.postgres).schema()
        with Redis() as broker, Cable(broker.port) as cable:
            where = {**self._short, "database_url": database_url, "broker_url": cable.url}
            with arena(f"{name}, Redis", self.root, self.zygote, **{**where, **given}) as made:
                yield made, broker, cable

    def quiet(self) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
        """What idle workers cost, and how soon they start a job."""
        with (
            self.sqlite("idle", **DEFAULTS) as poller,
            self.distributed("idle", **DEFAULTS) as (celery, _, _),
            ThreadPoolExecutor() as pool,
        ):
            both, starts = {"poller": poller, "redis": celery}, dict[str, float]()
            waits = {n: pool.submit(latency.idle, a, self.plan.idle) for n, a in both.items()}
            idle = {name: wait.result() for name, wait in waits.items()}
            for name, each in both.items():
                starts[name] = latency.starts(each, self.plan.starts, self.plan.seed)
                each.close()
        return idle, starts

    def cancels(self) -> dict[str, Scenario]:
        """Cancelling, with the default settings and without a broker."""
        plan = self.plan

        def scenario(each: Arena, broker: Redis, _: Cable) -> Row:
            broker.kill()
            return scenarios.cancels(each, plan.cancels, plan.cancels_at_once, plan.cancel)

        given = {**DEFAULTS, "poll_seconds": 0.2}
        return self._on_redis("cancel without broker", scenario, **given)

    def storms(self) -> dict[str, Scenario]:
        """The random part, in both arenas."""
        plan = self.plan
        kills, real = plan.kills - plan.real, plan.real
        return {
            **self._on_sqlite("storm", lambda a: self._storm(a, kills // 2, real - real // 2)),
            **self._on_redis("storm", lambda a, *_: self._storm(a, kills - kills // 2, real // 2)),
        }

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

    def scenarios(self) -> dict[str, Scenario]:
        """Everything else that strikes on purpose, the longest first."""
        plan, silent = self.plan, {"poll_seconds": outages.NEVER}
        away, again, times = plan.away, plan.again, plan.restarts
        slowly = {"poll_seconds": DEFAULTS["poll_seconds"]}
        return {
            **self._on_redis(
                "broker cut off",
                lambda a, b, c: outages.broker_cut_off(a, b, c, away, again),
                **silent,
            ),
            "database restarted, Redis": self._restarted,
            **self._on_sqlite("database locked", lambda a: outages.database_locked(a, times, 5.0)),
            **self._on_both("worker stopped", lambda a: scenarios.stalled(a, plan.gone)),
            **self._on_both("always dying", scenarios.dying),
            **self._on_both("failpoints", scenarios.failpoints),
            **self._on_redis(
                "broker killed", lambda a, b, _: outages.broker_killed(a, b, 3.0, again), **silent
            ),
            **self._on_redis(
                "broker flushed", lambda a, b, _: outages.broker_flushed(a, b), **slowly
            ),
            **self._on_both("one key", lambda a: scenarios.crowd(a, 8, 100)),
        }

    def _restarted(self) -> Row:
        with Postgres() as own, self.distributed("database restarted", own) as (each, _, _):
            return outages.database_restarted(each, own, self.plan.restarts, 2.0)

    def _on_both(self, name: str, act: Callable[[Arena], Row]) -> dict[str, Scenario]:
        return self._on_sqlite(name, act) | self._on_redis(name, lambda each, *_: act(each))

    def _on_sqlite(
        self, name: str, act: Callable[[Arena], Row], **given: Any
    ) -> dict[str, Scenario]:
        def scenario() -> Row:
            with self.sqlite(name, **given) as each:
                return act(each)

        return {f"{name}, SQLite": scenario}

    def _on_redis(
        self, name: str, act: Callable[[Arena, Redis, Cable], Row], **given: Any
    ) -> dict[str, Scenario]:
        def scenario() -> Row:
            with self.distributed(name, **given) as parts:
                return act(*parts)

        return {f"{name}, Redis": scenario}

    def controls(self) -> dict[str, Scenario]:
        """One guard after the other switched off."""
        return {guard: partial(self._until_caught, guard) for guard in controls.CAUGHT_BY}

    def _until_caught(self, guard: str) -> Row:
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
