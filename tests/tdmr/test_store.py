"""Entries are whole or absent."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdmr.errors import DiskFullError
from tdmr.store import Array, ArrayStore


def test_made_once_and_found_again(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path)

    def fill(array: Array) -> None:
        array[:] = 5

    made = store.make({"a": 1}, (2, 3), np.float16, fill)
    found = store.find({"a": 1})
    assert found is not None
    assert (made.dtype, found.tolist()) == (np.float16, [[5] * 3] * 2)
    assert store.find({"a": 2}) is None
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_a_failed_fill_leaves_nothing(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path)

    def fill(array: Array) -> None:
        raise RuntimeError("the foundation fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        store.make({"a": 1}, (2,), np.float32, fill)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(path: Any) -> Any:
        return shutil._ntuple_diskusage(100, 99, 1)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(DiskFullError, match="no room"):
        ArrayStore(tmp_path).make({}, (1,), np.float32, lambda array: None)
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_publishers_wins(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path)

    def fill(array: Array) -> None:
        array[:] = 1
        if store.find({}) is None:
            store.make({}, (1,), np.int64, lambda a: a.fill(2))

    assert store.make({}, (1,), np.int64, fill).tolist() == [2]
