"""docs/keeping.md names every setting of how long something is kept, with its default."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import Settings

PAGE = (Path(__file__).parents[3] / "docs" / "keeping.md").read_text()
AGES = [name for name in Settings.model_fields if name.startswith(("retain_", "deleted_"))]


@pytest.mark.parametrize("name", AGES)
def test_every_age_is_described_with_its_default(name: str) -> None:
    default = Settings.model_fields[name].default
    said = "for ever" if default is None else f"{default:.0f}"
    assert f"| `TDMR_{name.upper()}` | {said} |" in PAGE
