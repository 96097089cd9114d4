"""What a database spends on each thing that workers do, in milliseconds of its processors' time.

By processor time, not by the clock: what else the machine does hardly counts, and it tells how many
of them fit into a core.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from app.db import Database
from app.jobs import ledger, moves
from app.jobs.claims import Claim
from benchmarks.served import cpu_seconds
from benchmarks.server.stock import line

LEASE = 86_400.0


def measure(database: Database, postmaster: int, count: int) -> dict[str, float]:
    """Of a claim, a heartbeat without and with progress, a look at orders, and a poll in vain."""
    claims: list[Claim] = []

    def take(queue: str = "default") -> None:
        with database.write() as session:
            made = moves.claim(session, worker="cost", lease_seconds=LEASE, queues=[queue])
        if made is not None:
            claims.append(made)

    def beat(number: int, progress: bool) -> None:
        with database.write() as session:
            said = line(number).model_dump(mode="json") if progress else None
            ledger.beat(session, claims[-1], lease_seconds=LEASE, progress=said)

    def look() -> None:
        with database.read() as session:
            ledger.orders(session, claims[-1])

    acts: dict[str, Callable[[int], None]] = {
        "claim": lambda _: take(),
        "poll_in_vain": lambda _: take("nobodys"),
        "heartbeat": lambda number: beat(number, progress=False),
        "heartbeat_with_progress": lambda number: beat(number, progress=True),
        "look": lambda _: look(),
    }
    found = {}
    for name, act in acts.items():
        act(0)
        before = _spent(postmaster)
        for number in range(count):
            act(number)
        found[name] = round(1000 * (_spent(postmaster) - before) / count, 3)
    return found


def _spent(postmaster: int) -> float:
    """Seconds of processor time of a server and all that it has started and that still runs."""
    total = cpu_seconds(postmaster)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == postmaster:
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total
