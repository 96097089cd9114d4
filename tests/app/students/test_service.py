"""Students: stored as their manifest says, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.storage import LocalStorage
from app.students import service
from app.students.service import BundleError
from tests.app.service import BUNDLE, bundle


def change(folder: Path, **values: Any) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][0].update(values)
    path.write_text(json.dumps(manifest))


def test_every_file_and_the_manifest_are_stored(storage: LocalStorage, tmp_path: Path) -> None:
    rows = service.store(storage, "stu_1", bundle(tmp_path))
    assert {row["name"] for row in rows} == {*BUNDLE, "manifest.json"}
    for row in rows:
        content = storage.path(row["key"]).read_bytes()
        assert content == (tmp_path / row["name"]).read_bytes()
        assert row["key"] == f"students/stu_1/{row['name']}"
        assert row["bytes"] == len(content)


@pytest.mark.parametrize(
    "lie",
    [
        {"sha256": "0" * 64},
        {"bytes": 1},
        {"name": "../config.json"},
        {"name": "a/b"},
        {"name": ".hidden"},
        {"name": "README.md"},
        {"name": "manifest.json"},
    ],
)
def test_a_bundle_that_differs_from_its_manifest_isnt_stored(
    storage: LocalStorage, tmp_path: Path, lie: dict[str, Any]
) -> None:
    change(bundle(tmp_path), **lie)
    with pytest.raises(BundleError):
        service.store(storage, "stu_1", tmp_path)
    assert storage.older_than(0, "students") == []


def test_a_missing_file_leaves_nothing_stored(storage: LocalStorage, tmp_path: Path) -> None:
    (bundle(tmp_path) / "README.md").unlink()
    with pytest.raises(FileNotFoundError):
        service.store(storage, "stu_1", tmp_path)
    assert storage.older_than(0, "students") == []
