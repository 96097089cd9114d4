"""How fast the catalog's students are on this machine: measured once, each in its own process."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.db import Database
from app.models import Json
from app.students import latencies
from tdmr.catalog import CatalogEntry
from tdmr.export.machine import machine
from tdmr.jobdir import JobDir
from worker.launch import Child

PATIENCE = 1800.0  # seconds for one model


class MeasureError(Exception):
    """A model couldn't be measured; these are its process's last words."""


@dataclass(frozen=True)
class Plan:
    """What is to be measured: `again` those, too, that were measured here before."""

    entries: Sequence[CatalogEntry]
    runs: int = 200
    again: bool = False


def measure(database: Database, plan: Plan, tell: Callable[[str], None]) -> int:
    """Measure what isn't measured here yet, and store it; how many models failed.

    `tell` hears a line for every model.
    """
    here = latencies.name_of(machine())
    with database.read() as session:
        rows = [row for row in latencies.known(session, None) if row.machine == here]
    done = set() if plan.again else {(row.model, row.input_size) for row in rows}
    failed = 0
    for place, entry in enumerate(plan.entries, 1):
        head = f"{place}/{len(plan.entries)} {entry.name}"
        if (entry.name, entry.input_size) in done:
            tell(f"{head}: measured before")
            continue
        try:
            found = latencies.of_command(run(entry, plan.runs))
        except MeasureError as error:
            tell(f"{head}: {error}")
            failed += 1
            continue
        with database.write() as session:
            if plan.again:
                latencies.forget(session, found, None)
            latencies.record(session, found, None)
        tell(f"{head}: {found.p50_ms:.2f} ms, 95 % at most {found.p95_ms:.2f} ms")
    return failed


def run(entry: CatalogEntry, runs: int, patience: float = PATIENCE) -> Json:
    """What the library's own command prints. Raises MeasureError."""
    size = ["--size", str(entry.input_size), "--runs", str(runs)]
    with tempfile.TemporaryDirectory(prefix="tdmr-measure-") as folder:
        job = JobDir(Path(folder))
        child = Child([sys.executable, "-m", "tdmr", "latency", entry.name, *size], job)
        try:
            deadline = time.monotonic() + patience
            while (status := child.ended()) is None:
                if time.monotonic() > deadline:
                    raise MeasureError(f"it took more than {patience:g} seconds")
                time.sleep(0.1)
        finally:
            child.kill()
        lines = job.log.read_text(errors="replace").strip().splitlines() or [""]
        if status != 0:
            raise MeasureError(lines[-1] or f"its process ended with {status}")
        found: Json = json.loads(lines[-1])
        return found
