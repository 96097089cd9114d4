"""A claim among 10,000 jobs that wait, and pages of a list of a million, on PostgreSQL."""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import text

from app import migrate
from app.api import pages
from app.db import Database
from app.jobs import moves
from app.settings import Settings
from benchmarks.scale import costs, stock
from benchmarks.served import serving
from benchmarks.storm.services import Postgres

STATES = ("queued", "running", "succeeded", "failed", "cancelled", "paused")
# As it is started by default, so that every commit is on the disk; with memory for the rows.
DURABLE = ("-c", "shared_buffers=1GB", "-c", "max_connections=100")
LEASE = 86_400.0


def measure(folder: Path, ledger: stock.Ledger, claims: int, requests: int) -> dict[str, Any]:
    """Milliseconds of claims, and of pages as a client sees them."""
    with Postgres(DURABLE) as postgres:
        url = postgres.schema()
        migrate.upgrade(url)
        database = Database(url)
        stock.fill(database, stock.Ledger(ledger.total + 2 * claims, ledger.waiting + 2 * claims))
        claimed = _claims(database, claims)
        round_trip = _round_trip(database)
        spent = costs.measure(database, postgres.pid, claims)
        database.close()
        listed = _lists(folder, url, ledger, requests)
    return {
        **_cuts("claim", claimed),
        **listed,
        "round_trip_ms": round_trip,
        "database_cpu_ms": spent,
    }


def _claims(database: Database, count: int) -> list[float]:
    """Each a look and a transaction, as a worker's is; so many that the rest still waits."""
    taken = []
    for number in range(count):
        began = time.perf_counter()
        with database.read() as session:
            assert moves.is_any(session, ["default"], None)
        with database.write() as session:
            claim = moves.claim(
                session, worker=f"w{number}", lease_seconds=LEASE, queues=["default"]
            )
        taken.append(time.perf_counter() - began)
        assert claim is not None
    return taken


def _round_trip(database: Database) -> float:
    """What the emptiest statement takes on this machine, in milliseconds: the median."""
    taken = []
    with database.engine.connect() as connection:
        for _ in range(200):
            began = time.perf_counter()
            connection.execute(text("SELECT 1"))
            taken.append(time.perf_counter() - began)
    return round(1000 * statistics.median(taken), 3)


def _lists(folder: Path, url: str, ledger: stock.Ledger, requests: int) -> dict[str, Any]:
    """First pages, deep ones and filtered ones, over HTTP, one after the other."""
    folder.mkdir()
    Settings(data_dir=folder / "data").data_dir.mkdir()
    found: dict[str, list[float]] = {}
    given = {"database_url": url, "rate_read": "0"}
    with serving(folder, "--no-worker", **given) as server, server.client() as client:
        for path in ("/v1/jobs", *(f"/v1/jobs?status={state}" for state in STATES)):
            client.get(path)  # once, for what is compiled and cached
        for name, path in _paths(ledger, requests):
            began = time.perf_counter()
            response = client.get(path)
            found.setdefault(name, []).append(time.perf_counter() - began)
            _check(response)
    each = {name: _cuts("list", taken)["list_p99_ms"] for name, taken in sorted(found.items())}
    return {**_cuts("list", [one for taken in found.values() for one in taken]), "lists": each}


def _paths(ledger: stock.Ledger, requests: int) -> list[tuple[str, str]]:
    draw = random.Random(0)
    made = []
    for _ in range(requests):
        query, name = "limit=20", "first"
        if draw.random() < 0.5:
            place = stock.FIRST_MS + draw.randrange(ledger.total)
            cursor = pages.encode(f"job_{place:012x}" + "0" * 16)
            query, name = f"limit=20&after={cursor}", "deep"
        if draw.random() < 0.6:
            state = draw.choice(STATES)
            query, name = f"{query}&status={state}", f"{name}_{state}"
        made.append((name, f"/v1/jobs?{query}"))
    return made


def _check(response: httpx.Response) -> None:
    if response.status_code != 200:
        raise RuntimeError(response.text)


def _cuts(name: str, taken: list[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds."""
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    return {
        f"{name}_p50_ms": round(1000 * cuts[49], 2),
        f"{name}_p99_ms": round(1000 * cuts[98], 2),
    }
