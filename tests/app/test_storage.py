"""Files by key: whole or absent."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import DiskFullError, LockedError
from app.storage import LocalStorage, Part


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


@pytest.fixture
def part(storage: LocalStorage) -> Iterator[Part]:
    storage.begin("parts/u")
    part = storage.part("parts/u")
    yield part
    part.close()


def test_a_part_grows_and_is_cut_back(storage: LocalStorage, part: Part) -> None:
    part.write(b"abc" * 1000)
    part.write(b"tail")
    part.sync()
    assert (part.bytes, part.read(2999, 10)) == (3004, b"ctail")
    part.cut(3000)
    part.write(b"end")
    assert storage.path("parts/u").read_bytes() == b"abc" * 1000 + b"end"
    assert part.sha256() == hashlib.sha256(b"abc" * 1000 + b"end").hexdigest()


def test_a_part_goes_on_where_it_ended(storage: LocalStorage, part: Part) -> None:
    part.write(b"first")
    part.close()
    again = storage.part("parts/u")
    again.write(b"second")
    again.close()
    assert storage.path("parts/u").read_bytes() == b"firstsecond"
    part._handle = os.open(os.devnull, os.O_RDONLY)  # for the fixture to close


def test_a_part_is_for_one_at_a_time(storage: LocalStorage, part: Part) -> None:
    with pytest.raises(LockedError):
        storage.part("parts/u")
    other = "import sys; from pathlib import Path; from app.storage import LocalStorage\n"
    other += "LocalStorage(Path(sys.argv[1])).part('parts/u')"
    ran = subprocess.run([sys.executable, "-c", other, storage.root], capture_output=True)
    assert b"LockedError" in ran.stderr


def test_a_part_that_was_never_begun_or_is_begun_twice(storage: LocalStorage, part: Part) -> None:
    with pytest.raises(FileNotFoundError):
        storage.part("parts/none")
    part.write(b"x")
    with pytest.raises(FileExistsError):
        storage.begin("parts/u")
    assert storage.path("parts/u").read_bytes() == b"x"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_part_on_a_full_disk(storage: LocalStorage) -> None:
    storage.path("full").symlink_to("/dev/full")
    part = storage.part("full")
    with pytest.raises(DiskFullError, match="What had arrived before is kept"):
        part.write(b"x")
    assert part.bytes == 0
    part.close()
