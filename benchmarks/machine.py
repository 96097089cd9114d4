"""What every stored result says of where it comes from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return f"{os.cpu_count()} x {model}, {platform.system()}, Python {platform.python_version()}"


def commit() -> str:
    """The commit that was measured, `-dirty` if anything but stored results differs from it."""
    name = _git("describe", "--always").stdout.strip()
    if not name:
        return "unknown"
    changed = _git("diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude)benchmarks/results")
    return f"{name}-dirty" if changed.returncode else name


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["git", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Store `result` in benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
