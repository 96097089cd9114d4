"""The house's own rules: what loads what, and how long things may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("app", "tdmr", "worker", "migrations")
SOURCES = sorted(
    path for package in (*PACKAGES, "demo", "scripts") for path in (ROOT / package).rglob("*.py")
)
MAX_FILE, MAX_FUNCTION = 400, 60
HEAVY = {"torch", "timm", "torchvision", "safetensors"}


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("app.main", HEAVY | {"worker", "PIL"}),
        ("app.cli", HEAVY | {"worker"}),
        ("app.datasets.check", HEAVY | {"sqlalchemy", "fastapi", "celery", "worker"}),
        ("worker", HEAVY | {"fastapi"}),
        ("worker.cli", HEAVY | {"fastapi", "app.api", "app.main"}),
        ("tdmr", HEAVY | {"app", "worker", "fastapi", "sqlalchemy", "celery"}),
        ("tdmr.config", HEAVY | {"app", "worker"}),
        ("tdmr.catalog", HEAVY | {"app", "worker"}),
        ("tdmr.data.index", HEAVY | {"app", "worker"}),
        ("tdmr.cli", HEAVY | {"app", "worker"}),
        ("tdmr.client", HEAVY | {"app", "worker", "typer"}),
    ],
)
def test_what_an_import_never_loads(module: str, never: set[str]) -> None:
    code = f"import {module}, sys; print(*sorted({never!r} & set(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout.strip() == ""


def test_importing_the_server_does_no_work(tmp_path: Path) -> None:
    before = "import os, threading; files = set(os.listdir('.'));"
    after = "import app.main; assert set(os.listdir('.')) == files; print(threading.active_count())"
    ran = subprocess.run(
        [sys.executable, "-c", before + after],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert ran.stdout.strip() == "1"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MAX_FILE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MAX_FUNCTION, node.name
