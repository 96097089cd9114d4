"""The archive of a student: a zip that every program reads, and every part of it."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from app.errors import ConflictError
from app.storage import LocalStorage
from app.students import service
from app.students.archive import LIMIT, Archive, archive_of
from app.students.service import StoredFile
from tests.app.service import BUNDLE, bundle


@pytest.fixture
def files(storage: LocalStorage, tmp_path: Path) -> list[StoredFile]:
    folder = tmp_path / "bundle"
    folder.mkdir()
    rows = service.store(storage, "stu_1", bundle(folder))
    return [StoredFile.model_validate(row) for row in rows]


@pytest.fixture
def archive(files: list[StoredFile], storage: LocalStorage) -> Archive:
    return archive_of(files, storage)


def whole(archive: Archive) -> bytes:
    return b"".join(archive.read(0, archive.length))


def test_it_is_a_zip_with_the_files_in_it(archive: Archive) -> None:
    content = whole(archive)
    assert len(content) == archive.length
    with zipfile.ZipFile(io.BytesIO(content)) as read:
        assert read.testzip() is None
        assert {name: read.read(name) for name in BUNDLE} == BUNDLE
        assert {info.external_attr >> 16 for info in read.infolist()} == {0o100644}


def test_unzip_takes_it(archive: Archive, tmp_path: Path) -> None:
    unzip = shutil.which("unzip")  # without it, Python's own command does
    path = tmp_path / "student.zip"
    path.write_bytes(whole(archive))
    out = tmp_path / "out"
    python = [sys.executable, "-m", "zipfile", "-e", path, out]
    subprocess.run([unzip, "-q", path, "-d", out] if unzip else python, check=True)
    assert (tmp_path / "out" / "README.md").read_bytes() == BUNDLE["README.md"]


def test_the_same_files_are_the_same_bytes(
    archive: Archive, files: list[StoredFile], storage: LocalStorage
) -> None:
    again = archive_of(files, storage)
    assert whole(again) == whole(archive)
    assert again.etag == archive.etag
    changed = [files[0].model_copy(update={"sha256": "1" * 64}), *files[1:]]
    assert archive_of(changed, storage).etag != archive.etag


def test_every_part_is_a_part_of_the_whole(archive: Archive) -> None:
    content, dice = whole(archive), random.Random(0)
    for _ in range(200):
        start = dice.randrange(archive.length)
        stop = dice.randrange(start, archive.length + 1)
        assert b"".join(archive.read(start, stop)) == content[start:stop]


def test_what_no_zip_can_hold_is_refused(files: list[StoredFile], storage: LocalStorage) -> None:
    files[0] = files[0].model_copy(update={"bytes": LIMIT})
    with pytest.raises(ConflictError, match="one by one"):
        archive_of(files, storage)
