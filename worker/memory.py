"""How much memory a device has, found out without loading torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import structlog

GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # control groups, version 2
QUERY = ("--query-gpu=memory.total", "--format=csv,noheader,nounits")
PATIENCE_SECONDS = 10.0

log = structlog.get_logger(__name__)


def of(device: str) -> int | None:
    """Bytes of memory of `cpu`, `cuda:N` or `auto`; None where it can't be found out."""
    if device != "cpu":
        sizes = _gpus()
        number = int(device.partition(":")[2] or 0)
        if number < len(sizes):
            return sizes[number]
        if device != "auto":
            return None
    return _main()


def _gpus() -> list[int]:
    """Bytes of each GPU's memory, as the driver numbers them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        told = subprocess.run(  # noqa: S603 - the driver's own program, with fixed words
            [program, *QUERY],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        return [int(line) * 2**20 for line in told.stdout.split()]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        log.warning("gpu_memory_unknown", error=str(error))
        return []


def _main() -> int:
    """Bytes of this machine's memory, or what this group of processes may have of it."""
    all_of_it = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = GROUP_LIMIT.read_text(encoding="ascii").strip()
    except OSError:  # no such groups here
        return all_of_it
    return min(all_of_it, int(limit)) if limit.isdigit() else all_of_it
