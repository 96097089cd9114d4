"""Failpoints: each name is somewhere in the source, and a process dies there once."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tdmr.failpoint import COLLECTOR_POINTS, POINTS, VARIABLE

ROOT = Path(__file__).parents[2]


def test_every_point_is_in_the_source_and_has_a_name() -> None:
    calls = [
        name
        for package in ("tdmr", "app", "worker")
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r'failpoint\.reached\("([a-z.]+)"\)', path.read_text())
    ]
    assert sorted(calls) == sorted(POINTS + COLLECTOR_POINTS)


@pytest.mark.parametrize(
    ("wanted", "status"), [("bell.sent", -signal.SIGKILL), ("job.prepared", 0), (None, 0)]
)
def test_a_process_dies_at_the_point_that_was_asked_for_and_only_once(
    tmp_path: Path, wanted: str | None, status: int
) -> None:
    code = "from tdmr import failpoint; failpoint.reached('bell.sent')"
    env = {} if wanted is None else {VARIABLE: f"{wanted}:{tmp_path / 'marker'}"}
    run = [sys.executable, "-c", code]
    assert [subprocess.run(run, env=env, cwd=ROOT).returncode for _ in range(2)] == [status, 0]
