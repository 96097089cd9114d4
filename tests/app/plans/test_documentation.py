"""docs/jobs.md names every finding of a dry run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.api.test_dry_run import CLASSES, ORDERS

PAGE = (Path(__file__).parents[3] / "docs" / "jobs.md").read_text()
OTHERS = {"waiting_jobs", "device_hours", "unknown_model", "unknown_queue", "unknown_dataset"}
OTHERS |= {"dataset_not_ready", "memory", "disk", "budget_short", "input_not_tried"}
OTHERS |= {"licence_unknown", "model_not_ready"}
CODES = OTHERS | {code for *_, codes in CLASSES.values() for code in codes}


@pytest.mark.parametrize("code", sorted(CODES | {code for *_, code in ORDERS.values()}))
def test_every_finding_is_described(code: str) -> None:
    assert f"`{code}`" in PAGE
