"""Many images at once: in order, the same on any number of processes, past one that kills them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.datasets import zips as zip_archives
from app.datasets.examine import WORTH_A_POOL, Examined, examined
from app.datasets.findings import Findings
from app.datasets.layout import Placed
from app.datasets.members import Archive
from app.datasets.options import CheckOptions
from tests.app.datasets.conftest import Check
from tests.app.datasets.zips import good_files, pack, write

FILES = {**good_files(WORTH_A_POOL), "a/text.png": b"text", "b/empty.png": b""}
OPTIONS = CheckOptions(processes=2)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    upload = write(tmp_path / "upload.zip", pack(FILES))
    with zip_archives.listed(upload, OPTIONS, Findings()) as listed:
        yield listed


def placed(archive: Archive) -> list[Placed]:
    return [Placed(member, member.parts[0], None) for member in archive.members]


def told(found: Examined) -> tuple[str, str, list[str]]:
    return found.placed.member.name, found.sha256, [each.code for each in found.findings]


def test_several_processes_find_what_one_finds(archive: Archive) -> None:
    one = examined(archive, placed(archive), OPTIONS.model_copy(update={"processes": 1}))
    two = examined(archive, placed(archive), OPTIONS)
    assert [told(each) for each in two] == [told(each) for each in one]


def test_the_report_and_the_version_are_the_same(checked: Check) -> None:
    good = pack(good_files(WORTH_A_POOL))
    assert checked(good, processes=1) == checked(good, processes=2)


class Deadly(Placed):
    """Ends the process that it reaches, as a decoder's flaw does."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (139,)


def test_an_image_that_kills_its_decoder_is_named_and_the_others_are_found(
    archive: Archive,
) -> None:
    files = placed(archive)
    victims = {3, 70}
    for number in victims:
        files[number] = Deadly(files[number].member, "a", None)
    found = list(examined(archive, files, OPTIONS))
    assert [each.placed.member for each in found] == archive.members
    dead = {n for n, each in enumerate(found) if "broke down" in str(each.findings)}
    assert dead == victims
    assert sum(each.image is not None for each in found) == len(FILES) - 2 - len(victims)
