"""What asking for a job costs beside an empty route, and 500 clients that poll.

    make bench-server

Rounds of an empty FastAPI route, of a job and of a job that hasn't changed follow one another, so
that what else the machine does hits all three; each ratio is the median of its rounds'. Writes
benchmarks/results/server.json, or server_fast.json (FAST=1).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from app import migrate
from app.settings import Settings
from benchmarks.machine import commit, machine, write_result
from benchmarks.served import Running, cpu_seconds, launched, serving
from benchmarks.server import stock
from benchmarks.server.load import Order, Told
from benchmarks.storm.services import Postgres

FAST = bool(os.environ.get("FAST"))
ROUNDS, SECONDS = (3, 1.0) if FAST else (15, 3.0)
POLL_SECONDS = 10.0 if FAST else 60.0
CLIENTS, POLLERS, EVERY = 8, 500, 2.0
JOBS = 510
RATE = "1000000/second"  # of one key: counted as always, and never reached
console = Console()


def send(order: Order) -> Told:
    """Have an order carried out by another process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.server.load"],
        input=json.dumps(asdict(order)), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return Told(**json.loads(done.stdout))


def rate(order: Order, pid: int) -> tuple[float, float]:
    """Requests per second, by the clock and by the server's own processor time."""
    before = cpu_seconds(pid)
    told = send(order)
    if told.errors:
        raise RuntimeError(f"{told.errors} of {told.count} answers were errors: {told.statuses}")
    return told.count / told.seconds, told.count / (cpu_seconds(pid) - before)


def rounds(server: Running, empty: tuple[str, int], jobs: list[str]) -> dict[str, Any]:
    """The three routes in turn; what they reach, and the ratios."""
    paths = [f"/v1/jobs/{job_id}" for job_id in jobs]
    orders = {
        "empty": (Order(empty[0], ["/"], None, CLIENTS, SECONDS), empty[1]),
        "job": (Order(server.address, paths, server.key, CLIENTS, SECONDS), server.process.pid),
        "same": (
            Order(server.address, paths, server.key, CLIENTS, SECONDS, conditional=True),
            server.process.pid,
        ),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in orders}
    for _ in track(range(ROUNDS), "Rounds", console=console):
        for name, (order, pid) in orders.items():
            found[name].append(rate(order, pid))
    return {
        "requests_per_second": {
            name: round(statistics.median(each[0] for each in rates))
            for name, rates in found.items()
        },
        **ratios("job_get_over_empty", found["job"], found["empty"]),
        **ratios("job_304_over_empty", found["same"], found["empty"]),
    }


def ratios(
    name: str, over: list[tuple[float, float]], under: list[tuple[float, float]]
) -> dict[str, Any]:
    """Median and quartiles of the rounds' ratios, by the clock and by processor time."""
    found: dict[str, Any] = {}
    for place, ending in ((0, ""), (1, "_by_cpu")):
        each = [a[place] / b[place] for a, b in zip(over, under, strict=True)]
        low, middle, high = statistics.quantiles(each, n=4)
        found[name + ending] = round(middle, 3)
        found[f"{name}{ending}_quartiles"] = [round(low, 3), round(high, 3)]
    return found


def poll(server: Running, jobs: dict[str, list[str]]) -> dict[str, Any]:
    """500 clients, each asking every two seconds how its own job is."""
    paths = [f"/v1/jobs/{job_id}" for ids in zip(*jobs.values(), strict=True) for job_id in ids]
    before = server.cpu_seconds()
    told = send(
        Order(server.address, paths, server.key, POLLERS, POLL_SECONDS, EVERY, conditional=True)
    )
    cuts = statistics.quantiles(told.latencies, n=100)
    return {
        "p50_ms": round(cuts[49], 2),
        "p99_ms": round(cuts[98], 2),
        "worst_ms": round(max(told.latencies), 2),
        "errors": told.errors,
        "answers": told.statuses,
        "cores": round((server.cpu_seconds() - before) / told.seconds, 3),
    }


@contextmanager
def stocked(folder: Path, database_url: str | None = None) -> Iterator[tuple[Running, Any]]:
    """A server whose database has jobs in all phases, and their ids."""
    folder.mkdir()
    given = {} if database_url is None else {"database_url": database_url}
    settings = Settings(data_dir=folder / "data", database_url=database_url)
    settings.data_dir.mkdir()
    migrate.upgrade(settings.url)
    jobs = stock.fill(settings, JOBS)
    with serving(folder, "--no-worker", rate_read=RATE, **given) as server:
        yield server, jobs


def main() -> None:
    """Run, print and store."""
    with tempfile.TemporaryDirectory() as name, Postgres() as postgres:
        root = Path(name)
        with (
            launched([sys.executable, "-m", "benchmarks.server.empty"], root / "empty") as empty,
            stocked(root / "sqlite") as (server, jobs),
        ):
            result = rounds(server, empty, jobs["running"])
            polled = {"sqlite": poll(server, jobs)}
        with stocked(root / "postgresql", postgres.schema()) as (server, jobs):
            polled["postgresql"] = poll(server, jobs)
    result = {
        **result,
        "poll500": polled,
        "clients": CLIENTS,
        "rounds": ROUNDS,
        "command": f"{'FAST=1 ' if FAST else ''}make bench-server",
        "commit": commit(),
        "machine": machine(),
    }
    console.print(result)
    written = write_result("server_fast" if FAST else "server", result)
    console.print(f"Written to {written.name}")


if __name__ == "__main__":
    main()
