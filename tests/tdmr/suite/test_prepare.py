"""From archives to a dataset folder, and fewer shots of it."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tdmr.data.index import load_index
from tdmr.errors import DatasetError
from tdmr.suite import sources
from tdmr.suite.download import DownloadError
from tdmr.suite.prepare import few_shot, prepare
from tdmr.suite.sources import Archive
from tests.tdmr.suite import standins
from tests.tdmr.suite.conftest import Publisher


@pytest.mark.parametrize("name", sources.SOURCES)
def test_published_archives_become_a_dataset(
    name: str, publisher: Publisher, tmp_path: Path
) -> None:
    standins.WRITERS[name](tmp_path / "official")
    source, publisher.files = standins.published(name, tmp_path / "official", publisher.address)
    told: list[str] = []
    root = tmp_path / "data"
    folder = prepare(source, root, download=True, on_work=lambda what, *_: told.append(what))
    assert folder == root / name / "dataset"
    index = load_index(folder)
    assert len(index.split("train")) == source.train
    assert set(told) == {*(archive.name for archive in source.archives), f"{name} images"}
    assert len(publisher.asked) == len(source.archives)

    publisher.files.clear()
    assert prepare(source, root) == folder
    assert sorted(p.name for p in folder.parent.iterdir()) == ["archives", "dataset", "original"]


def test_without_download_it_says_what_to_place_where(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Add --download, or place the file") as caught:
        prepare(sources.FOOD_101, tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "food-101" / "archives" / "food-101.tar.gz") in message
    assert "4,996.3 MB" in message
    assert sources.FOOD_101.archives[0].md5 in message
    assert sources.FOOD_101.terms in message


def test_what_was_unpacked_by_hand_is_used(tmp_path: Path) -> None:
    standins.food_101(tmp_path / "food-101" / "original")
    folder = prepare(standins.source("food-101"), tmp_path)
    assert len(load_index(folder).images) == 15


def test_an_archive_placed_by_hand_is_verified_and_kept(tmp_path: Path) -> None:
    standins.food_101(tmp_path / "official")
    source, files = standins.published("food-101", tmp_path / "official", "http://127.0.0.1:9")
    placed = tmp_path / "food-101" / "archives" / "food-101.tar.gz"
    placed.parent.mkdir(parents=True)
    placed.write_bytes(files["/food-101/food-101.tar.gz"][:-1])
    with pytest.raises(DatasetError, match="has MD5"):
        prepare(source, tmp_path)
    assert placed.exists()
    placed.write_bytes(files["/food-101/food-101.tar.gz"])
    assert prepare(source, tmp_path).is_dir()


def test_a_damaged_download_leaves_no_dataset(publisher: Publisher, tmp_path: Path) -> None:
    standins.food_101(tmp_path / "official")
    source, files = standins.published("food-101", tmp_path / "official", publisher.address)
    publisher.files = {path: content[:-8] for path, content in files.items()}
    with pytest.raises(DownloadError, match="removed"):
        prepare(source, tmp_path / "data", download=True)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", ["climbs", "links", "no tar"])
def test_a_hostile_archive_writes_nothing_outside(kind: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("../../../evil.txt" if kind == "climbs" else "images")
        if kind == "links":
            member.type, member.linkname = tarfile.SYMTYPE, "/"
        member.size = 4 if kind == "climbs" else 0
        tar.addfile(member, io.BytesIO(b"evil"))
    content = b"not a tar" if kind == "no tar" else buffer.getvalue()
    placed = tmp_path / "data" / "food-101" / "archives" / "food-101.tar.gz"
    placed.parent.mkdir(parents=True)
    placed.write_bytes(content)
    digest = standins.hashlib.md5(content).hexdigest()
    archive = Archive("http://127.0.0.1:9/food-101.tar.gz", len(content), digest)
    source = replace(standins.source("food-101"), archives=(archive,))
    with pytest.raises(DatasetError, match="can't be unpacked"):
        prepare(source, tmp_path / "data")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [placed]
    assert not (tmp_path / "data" / "food-101" / "original").exists()


def test_a_stored_dataset_with_other_counts_is_refused(tmp_path: Path) -> None:
    standins.food_101(tmp_path / "food-101" / "original")
    prepare(standins.source("food-101"), tmp_path)
    with pytest.raises(DatasetError, match=r"has 3 classes; Food-101 .* has 101"):
        prepare(sources.FOOD_101, tmp_path)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The stand-in for Flowers-102, which has all three splits."""
    standins.flowers_102(tmp_path / "flowers-102" / "original")
    return prepare(standins.source("flowers-102"), tmp_path)


def test_few_shots_reduce_training_and_nothing_else(dataset: Path) -> None:
    whole = load_index(dataset)
    assert few_shot(dataset, "all", 0) == dataset
    drawn = {}
    for shots in (1, 2):
        folder = few_shot(dataset, shots, 0)
        index = load_index(folder)
        assert Counter(image.label for image in index.split("train")) == dict.fromkeys(
            whole.classes, shots
        )
        assert index.split("test") == whole.split("test")
        assert index.split("val") == whole.split("val")
        assert index.classes == whole.classes
        assert index.version != whole.version
        assert all((folder / image.file).is_file() for image in index.images)
        drawn[shots] = {image.file for image in index.split("train")}
    assert drawn[1] < drawn[2] < {image.file for image in whole.split("train")}
    assert load_index(dataset) == whole


def test_a_draw_belongs_to_its_seed(dataset: Path) -> None:
    def drawn(seed: int) -> tuple[str, ...]:
        index = load_index(few_shot(dataset, 1, seed))
        return tuple(image.file for image in index.split("train"))

    assert drawn(0) == drawn(0)
    assert len({drawn(seed) for seed in range(6)}) > 1


def test_more_shots_than_there_are_take_all(dataset: Path) -> None:
    index, whole = load_index(few_shot(dataset, 50, 0)), load_index(dataset)
    assert index == whole


def test_a_subset_of_an_older_dataset_is_drawn_again(dataset: Path) -> None:
    folder = few_shot(dataset, 1, 0)
    index = load_index(folder)
    stale = index.model_copy(update={"images": index.images[1:]})
    (folder / "index.json").write_text(stale.model_dump_json())
    with pytest.raises(DatasetError, match="no image to train on"):
        load_index(folder)
    assert load_index(few_shot(dataset, 1, 0)) == index
