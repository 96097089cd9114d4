"""The API held to its own OpenAPI document by Schemathesis, all checks, with a key.

    make fuzz

Starts a real server with a dataset, a job and a student, and sends it what the document allows and
what it doesn't. Ends with a status other than 0 when an answer is of 500 and above, or isn't as the
document says. Writes benchmarks/results/fuzz.json, or fuzz_fast.json when it was made shorter.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.contract.stock import stock
from benchmarks.machine import commit, machine, write_result
from benchmarks.served import Running, serving

CASES = 100_000
SERVER_ERROR = "ST101"
HERE = Path(__file__).parent
RATE = "1000000/second"
LIMITS = {f"rate_{name}": RATE for name in ("read", "write", "upload", "predict", "failures")}
LIMITS |= {"quota_waiting_jobs": "1000000", "max_open_uploads": "1000000"}


def run(folder: Path, cases: int, seed: int) -> dict[str, Any]:
    """Send so many cases or some more, in as many runs as it takes; what was found."""
    with serving(folder, "--no-worker", **LIMITS) as server:
        known = stock(server)
        total: dict[str, Any] = {}
        while total.get("cases", 0) < cases:
            left = cases - total.get("cases", 0)
            printed = _schemathesis(server, known, folder, left, seed + total.get("runs", 0))
            total = _added(total, _told(printed, folder))
        return total


def _added(total: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    if not total:
        return {**one, "runs": 1}
    sums = {name: total[name] + one[name] for name in ("cases", "server_errors", "undocumented")}
    printed = [each["printed"] for each in (total, one) if each["found"] or not each["complete"]]
    return {
        **one,
        **sums,
        "runs": total["runs"] + 1,
        "complete": total["complete"] and one["complete"],
        "found": total["found"] + one["found"],
        "printed": "\n".join(printed) or one["printed"],
    }


def _schemathesis(
    server: Running, known: dict[str, list[str]], folder: Path, cases: int, seed: int
) -> str:
    """Run it until it has sent enough; what it has printed."""
    operations = len(_operations(server))
    each = max(2, min(cases // operations, 500))
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file"),
        *(str(HERE / "schemathesis.toml"), "run", f"{server.address}/openapi.json"),
        *("-H", f"Authorization: Bearer {server.key}", "--checks", "all"),
        *("--seed", str(seed), "--max-examples", str(each), "--continue-on-failure"),
        *("--suppress-health-check", "all", "--warnings", "off"),
        *("--report", "json", "--report-json-path", str(folder / "report.json")),
    ]
    given = {
        **os.environ,
        "TDMR_CONTRACT_KNOWN": json.dumps(known),
        "SCHEMATHESIS_HOOKS": "benchmarks.contract.hooks",
        "PYTHONHASHSEED": str(seed),
    }
    done = subprocess.run(
        command, env=given, cwd=HERE.parents[1], capture_output=True, text=True, check=False
    )
    if not (folder / "report.json").exists():
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


def _operations(server: Running) -> list[str]:
    with server.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    return [f"{method} {path}" for path, methods in paths.items() for method in methods]


def _told(printed: str, folder: Path) -> dict[str, Any]:
    report = json.loads((folder / "report.json").read_text())
    found = [
        {name: each[name] for name in ("code", "title", "count", "operations")}
        for each in report["failures"]
    ]
    errors = sum(each["count"] for each in found if each["code"] == SERVER_ERROR)
    return {
        "cases": report["test_cases"]["generated"],
        "operations": report["operations"]["tested"],
        "server_errors": errors,
        "undocumented": sum(each["count"] for each in found) - errors,
        "complete": report["complete"] and not report["test_cases"]["errored"],
        "found": found,
        "printed": printed,
    }


def main() -> None:
    """Run, print and store."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = run(Path(name), given.cases, given.seed)
    console = Console()
    console.print(found.pop("printed"), markup=False, highlight=False)
    result = {
        **found,
        "command": "make fuzz",
        "seed": given.seed,
        "commit": commit(),
        "machine": machine(),
    }
    full = found["cases"] >= CASES
    console.print(f"Written to {write_result('fuzz' if full else 'fuzz_fast', result).name}")
    sys.exit(bool(found["found"] or not found["complete"]))


if __name__ == "__main__":
    main()
