"""Files by key: whole or absent."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest

from app.errors import DiskFullError
from app.storage import LocalStorage


def files(storage: LocalStorage) -> list[str]:
    return [str(p.relative_to(storage.root)) for p in storage.root.rglob("*") if p.is_file()]


def test_put_and_fetch(storage: LocalStorage, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"digits" * 1000)
    stored = storage.put("datasets/ds_1/dataset.zip", source)
    assert stored.bytes == 6000
    assert stored.sha256 == hashlib.sha256(b"digits" * 1000).hexdigest()
    storage.fetch(stored.key, target)
    assert target.read_bytes() == source.read_bytes()
    assert files(storage) == ["datasets/ds_1/dataset.zip"]


def test_a_file_appears_only_when_whole(storage: LocalStorage) -> None:
    def fail() -> None:
        with storage.writing("a/b") as writer:
            writer.write(b"half")
            assert not storage.path("a/b").exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert files(storage) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_said_and_leaves_nothing(storage: LocalStorage) -> None:
    def fill() -> None:
        with storage.writing("a/b"), Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(DiskFullError) as caught:
        fill()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert files(storage) == []


def test_delete_takes_a_file_or_all_below(storage: LocalStorage, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_bytes(b"x")
    for key in ("students/s1/a", "students/s1/b/c", "students/s2/a"):
        storage.put(key, source)
    storage.delete("students/s1")
    storage.delete("students/s3")
    assert files(storage) == ["students/s2/a"]
    storage.delete("students/s2/a")
    assert files(storage) == []


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", ".staging/x"])
def test_a_key_that_would_leave_the_store_is_refused(storage: LocalStorage, key: str) -> None:
    with pytest.raises(ValueError, match="storage key"):
        storage.path(key)
