"""docs/datasets.md speaks of every finding that there is."""

from __future__ import annotations

import ast
from pathlib import Path

import app.datasets

FOLDER = Path(app.datasets.__file__).parent
PAGE = FOLDER.parent.parent / "docs" / "datasets.md"
MAKERS = {"error", "warn", "ArchiveError", "ImageError", "_failure"}


def codes() -> set[str]:
    """The first argument of everything that makes a finding."""
    found = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
                first = node.args[0]
                if name in MAKERS and isinstance(first, ast.Constant):
                    found.add(str(first.value))
    return found


def test_every_code_is_explained() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert len(codes()) > 40
    assert {code for code in codes() if f"`{code}`" not in page} == set()
