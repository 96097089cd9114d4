"""How far one server and one database reach.

    make bench-scale

A claim among 10,000 jobs that wait and pages of a list of a million, on a PostgreSQL whose commits
are on the disk; an upload beside hashing and writing the same bytes, a download beside Caddy
serving the same file. Writes benchmarks/results/scale.json, or scale_fast.json (FAST=1).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.machine import commit, machine, write_result
from benchmarks.scale import ledger, stock, transfer

FAST = bool(os.environ.get("FAST"))
JOBS, CLAIMS, REQUESTS = (100_000, 300, 300) if FAST else (1_000_000, 2000, 3000)
MEBIBYTES, ROUNDS = (256, 3) if FAST else (1024, 5)
BOUNDS = {  # the other way round for ratios
    "claim_p99_ms": 20.0,
    "list_p99_ms": 50.0,
    "upload_over_hash_write": 0.5,
    "download_over_file": 0.5,
}
console = Console()


def missed(result: dict[str, float]) -> list[str]:
    """The figures that aren't what they must be."""
    return [
        name
        for name, bound in BOUNDS.items()
        if (result[name] > bound if name.endswith("_ms") else result[name] < bound)
    ]


def main() -> None:
    """Run, print and store; ends with 1 where a bound is missed."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        counts = stock.Ledger(JOBS, stock.WAITING)
        measured = {
            **ledger.measure(root / "ledger", counts, CLAIMS, REQUESTS),
            **transfer.measure(root / "transfer", MEBIBYTES, ROUNDS),
        }
    result = {
        **measured,
        "jobs": JOBS,
        "waiting": stock.WAITING,
        "missed": missed(measured),
        "seeds": [0],
        "command": f"{'FAST=1 ' if FAST else ''}make bench-scale",
        "commit": commit(),
        "machine": machine(),
    }
    console.print(result)
    written = write_result("scale_fast" if FAST else "scale", result)
    console.print(f"Written to {written.name}")
    sys.exit(1 if result["missed"] else 0)


if __name__ == "__main__":
    main()
