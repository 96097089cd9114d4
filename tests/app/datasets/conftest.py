"""The check of an upload, run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.datasets.check import STAGES, check
from app.datasets.options import CheckOptions
from tdmr.jobdir import JobDir, Reporter
from tests.app.datasets import zips

Check = Callable[..., dict[str, Any]]


@pytest.fixture
def checked(tmp_path: Path) -> Check:
    """`checked(content, **limits)`: the report on an upload; files lie in tmp_path / "out"."""

    def run(content: bytes, **limits: Any) -> dict[str, Any]:
        upload = zips.write(tmp_path / "upload", content)
        reporter = Reporter(JobDir(tmp_path), STAGES)
        return check(upload, tmp_path / "out", CheckOptions(**limits), reporter)

    return run


def codes(report: dict[str, Any], severity: str = "error") -> list[str]:
    """The codes of a report's findings."""
    return [each["code"] for each in report["findings"] if each["severity"] == severity]
