"""Files by key, whole or absent: the same in a local folder and in two object stores."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import DamagedFileError, DiskFullError, LockedError
from app.settings import Settings
from app.storage import LocalStorage, Part, Storage, open_storage
from tests.stores import Store, store

BIG = random.Random(8).randbytes(9 << 20)  # more than a part, and than two blocks of a download


@pytest.fixture(scope="module", params=["local", "moto", "rclone"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> object:
    """Where files are stored: None for a local folder, or an object store."""
    if request.param == "local":
        yield None
        return
    with store(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def storage(place: Store | None, tmp_path: Path) -> Storage:
    """An empty store, of each kind."""
    more = {} if place is None else place.settings(storage_retry_seconds=2)
    return open_storage(Settings(data_dir=tmp_path / "var", **more))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"digits" * 1000)
    return path


def keys(storage: Storage, *prefixes: str) -> list[str]:
    return sorted(key for prefix in prefixes for key in storage.older_than(-60, prefix))


def read(storage: Storage, key: str, start: int, stop: int) -> bytes:
    return b"".join(storage.read(key, start, stop))


def test_put_and_fetch(storage: Storage, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    stored = storage.put("datasets/ds_1/dataset.zip", source)
    assert stored.bytes == 6000 == storage.size(stored.key)
    assert stored.sha256 == hashlib.sha256(b"digits" * 1000).hexdigest()
    storage.fetch(stored.key, target, stored.sha256)
    assert target.read_bytes() == source.read_bytes()
    assert keys(storage, "datasets") == ["datasets/ds_1/dataset.zip"]
    assert storage.older_than(60, "datasets") == []
    assert storage.trouble() is None


def test_what_isnt_there(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.fetch("a/b", tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        read(storage, "a/b", 0, 1)
    assert not (tmp_path / "out").exists()
    assert storage.size("a/b") is None
    storage.delete("a")


def test_a_file_that_isnt_what_it_was_never_arrives(
    storage: Storage, source: Path, tmp_path: Path
) -> None:
    promised = storage.put("a/b", source).sha256
    source.write_bytes(b"digits" * 999 + b"dogits")
    storage.put("a/b", source)
    with pytest.raises(DamagedFileError, match="another SHA-256"):
        storage.fetch("a/b", tmp_path / "out", promised)
    assert not (tmp_path / "out").exists()


def test_a_large_file_goes_in_parts_and_comes_in_any(
    storage: Storage, source: Path, tmp_path: Path
) -> None:
    source.write_bytes(BIG)
    assert storage.put("a/put", source).sha256 == hashlib.sha256(BIG).hexdigest()
    with storage.writing("a/written") as writer:
        for place in range(0, len(BIG), 700_000):
            writer.write(BIG[place : place + 700_000])
    assert (writer.bytes, writer.sha256) == (len(BIG), hashlib.sha256(BIG).hexdigest())
    storage.fetch("a/written", tmp_path / "out", writer.sha256)
    dice = random.Random(1)
    for key in ("a/put", "a/written"):
        for _ in range(4):
            start = dice.randrange(len(BIG))
            stop = dice.randrange(start, len(BIG) + 1)
            assert read(storage, key, start, stop) == BIG[start:stop]


@pytest.mark.parametrize("size", [0, 4, 9 << 20], ids=["nothing", "little", "parts"])
def test_a_file_appears_only_when_whole(storage: Storage, size: int) -> None:
    def fail() -> None:
        with storage.writing("a/b") as writer:
            for place in range(0, size, 1 << 20):
                writer.write(BIG[place : min(place + (1 << 20), size)])
            assert storage.size("a/b") is None
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert keys(storage, "a") == []


def test_an_empty_file_is_one(storage: Storage, tmp_path: Path) -> None:
    with storage.writing("a/b"):
        pass
    storage.fetch("a/b", tmp_path / "out", hashlib.sha256().hexdigest())
    assert (storage.size("a/b"), read(storage, "a/b", 0, 0)) == (0, b"")


def test_delete_takes_a_file_or_all_below(storage: Storage, source: Path) -> None:
    for key in ("students/s1/a", "students/s1/b/c", "students/s10/a", "students/s2/a"):
        storage.put(key, source)
    storage.delete("students/s1")
    storage.delete("students/s3")
    assert keys(storage, "students") == ["students/s10/a", "students/s2/a"]
    storage.delete("students/s2/a")
    assert keys(storage, "students") == ["students/s10/a"]


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", ".staging/x"])
def test_a_key_that_would_leave_the_store_is_refused(
    storage: Storage, source: Path, key: str
) -> None:
    for use in (storage.size, storage.delete, lambda key: storage.put(key, source)):
        with pytest.raises(ValueError, match="storage key"):
            use(key)


@pytest.fixture
def part(storage: Storage) -> Iterator[Part]:
    storage.begin("parts/u")
    part = storage.part("parts/u")
    yield part
    part.close()


def test_a_part_grows_and_is_cut_back_and_settled(
    storage: Storage, part: Part, tmp_path: Path
) -> None:
    part.write(b"abc" * 1000)
    part.write(b"tail")
    part.sync()
    assert (part.bytes, part.read(2999, 10)) == (3004, b"ctail")
    part.cut(3000)
    part.write(b"end")
    whole = b"abc" * 1000 + b"end"
    stored = storage.settle("parts/u", part)
    storage.forget_part("parts/u")
    assert stored.sha256 == part.sha256() == hashlib.sha256(whole).hexdigest()
    storage.fetch("parts/u", tmp_path / "out", stored.sha256)
    assert (tmp_path / "out").read_bytes() == whole
    storage.delete("parts/u")
    assert keys(storage, "parts") == []


def test_an_unsettled_part_is_known_and_can_be_deleted(storage: Storage, part: Part) -> None:
    assert keys(storage, "parts") == ["parts/u"]
    storage.delete("parts/u")
    assert keys(storage, "parts") == []
    with pytest.raises(FileNotFoundError):
        storage.part("parts/u")


def test_a_part_goes_on_where_it_ended(storage: Storage, part: Part) -> None:
    part.write(b"first")
    part.close()
    again = storage.part("parts/u")
    again.write(b"second")
    assert again.read(0, 100) == b"firstsecond"
    again.close()
    part._handle = os.open(os.devnull, os.O_RDONLY)  # for the fixture to close


def test_a_part_that_was_never_begun_or_is_begun_twice(storage: Storage, part: Part) -> None:
    with pytest.raises(FileNotFoundError):
        storage.part("parts/none")
    part.write(b"x")
    with pytest.raises(FileExistsError):
        storage.begin("parts/u")
    assert part.read(0, 10) == b"x"


@pytest.fixture
def local(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "local")


def test_a_part_is_for_one_at_a_time(local: LocalStorage) -> None:
    local.begin("parts/u")
    part = local.part("parts/u")
    with pytest.raises(LockedError):
        local.part("parts/u")
    other = "import sys; from pathlib import Path; from app.storage import LocalStorage\n"
    other += "LocalStorage(Path(sys.argv[1])).part('parts/u')"
    ran = subprocess.run([sys.executable, "-c", other, local.root], capture_output=True)
    assert b"LockedError" in ran.stderr
    part.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_said_and_leaves_nothing(local: LocalStorage) -> None:
    def fill() -> None:
        with local.writing("a/b"), Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(DiskFullError) as caught:
        fill()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert [path for path in local.root.rglob("*") if path.is_file()] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_part_on_a_full_disk(local: LocalStorage) -> None:
    local.path("full").symlink_to("/dev/full")
    part = local.part("full")
    with pytest.raises(DiskFullError, match="What had arrived before is kept"):
        part.write(b"x")
    assert part.bytes == 0
    part.close()
