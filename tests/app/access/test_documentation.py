"""docs/access.md names every scope, and every limit with its default."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.access.scopes import ALL, Scope
from app.settings import Settings

PAGE = (Path(__file__).parents[3] / "docs" / "access.md").read_text()
LIMITS = [name for name in Settings.model_fields if name.startswith(("rate_", "quota_"))]


@pytest.mark.parametrize("scope", ALL)
def test_every_scope_is_described(scope: Scope) -> None:
    assert f"`{scope.value}`" in PAGE


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_is_described_with_its_default(name: str) -> None:
    default = Settings.model_fields[name].default
    said = f"{default // 2**30} GiB" if name.endswith("_bytes") else str(default)
    assert f"| `TDMR_{name.upper()}` | {said.removesuffix('.0')} |" in PAGE
