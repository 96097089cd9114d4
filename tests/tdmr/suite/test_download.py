"""Downloads over real HTTP: whole, resumed, cut off, damaged."""

from __future__ import annotations

import gzip
import hashlib
import random
from pathlib import Path

import pytest

from tdmr.errors import DatasetError
from tdmr.suite.download import DownloadError, fetch, verify
from tdmr.suite.sources import Archive
from tests.tdmr.suite.conftest import Publisher

CONTENT = gzip.compress(random.Random(1).randbytes(200_000))


def offered(publisher: Publisher, content: bytes = CONTENT) -> Archive:
    publisher.files["/some.tgz"] = content
    digest = hashlib.md5(CONTENT).hexdigest()
    return Archive(f"{publisher.address}/some.tgz", len(CONTENT), digest)


def test_a_file_arrives_as_it_is_and_progress_is_told(publisher: Publisher, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    target = tmp_path / "archives" / "some.tgz"
    fetch(offered(publisher), target, lambda done, total: told.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in target.parent.iterdir()] == ["some.tgz"]


def test_a_cut_off_download_goes_on_where_it_stopped(publisher: Publisher, tmp_path: Path) -> None:
    archive, target = offered(publisher), tmp_path / "some.tgz"
    publisher.cut = 150_000
    with pytest.raises(DownloadError, match=r"go on where it stopped.* by hand") as caught:
        fetch(archive, target)
    assert str(target) in str(caught.value)
    assert archive.md5 in str(caught.value)
    assert (tmp_path / "some.tgz.part").stat().st_size == 150_000
    publisher.cut = None
    fetch(archive, target)
    assert publisher.asked == [None, "bytes=150000-"]
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_again(publisher: Publisher, tmp_path: Path) -> None:
    archive = offered(publisher)
    publisher.ranges = False
    (tmp_path / "some.tgz.part").write_bytes(CONTENT[:1000])
    fetch(archive, tmp_path / "some.tgz")
    assert (tmp_path / "some.tgz").read_bytes() == CONTENT


def test_a_part_that_is_complete_is_only_verified(publisher: Publisher, tmp_path: Path) -> None:
    archive = offered(publisher)
    (tmp_path / "some.tgz.part").write_bytes(CONTENT)
    fetch(archive, tmp_path / "some.tgz")
    assert publisher.asked == [f"bytes={len(CONTENT)}-"]
    assert (tmp_path / "some.tgz").read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_begun_again(publisher: Publisher, tmp_path: Path) -> None:
    archive = offered(publisher)
    (tmp_path / "some.tgz.part").write_bytes(CONTENT + b"more")
    fetch(archive, tmp_path / "some.tgz")
    assert (tmp_path / "some.tgz").read_bytes() == CONTENT
    assert publisher.asked == [f"bytes={len(CONTENT) + 4}-", None]


def test_another_checksum_removes_the_file(publisher: Publisher, tmp_path: Path) -> None:
    archive = offered(publisher, CONTENT[:-1] + b"?")
    with pytest.raises(DownloadError, match=r"not .* as published by torchvision; it was removed"):
        fetch(archive, tmp_path / "some.tgz")
    assert not list(tmp_path.iterdir())


def test_an_answer_other_than_the_file_keeps_nothing(publisher: Publisher, tmp_path: Path) -> None:
    archive = offered(publisher)
    publisher.files.clear()
    with pytest.raises(DownloadError, match="404"):
        fetch(archive, tmp_path / "some.tgz")
    assert not list(tmp_path.iterdir())


def test_no_network_says_how_to_do_without(tmp_path: Path) -> None:
    archive = Archive("http://127.0.0.1:9/some.tgz", 5, "0" * 32)
    with pytest.raises(DownloadError, match=r"can't be downloaded.*place the file .* by hand"):
        fetch(archive, tmp_path / "some.tgz")


def test_a_file_placed_by_hand_is_verified(tmp_path: Path) -> None:
    path = tmp_path / "some.tgz"
    path.write_bytes(CONTENT)
    verify(Archive("http://x/some.tgz", 1, hashlib.md5(CONTENT).hexdigest()), path)
    with pytest.raises(DatasetError, match=r"some\.tgz has MD5 .*download it again"):
        verify(Archive("http://x/some.tgz", 1, "0" * 32), path)
    assert path.exists()
