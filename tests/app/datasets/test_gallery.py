"""The gallery that a check writes: every image in order, with its thumbnail."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from app.datasets.gallery import Gallery
from tdmr.data.index import DatasetIndex
from tests.app.datasets.conftest import Check
from tests.app.datasets.zips import good_files, pack, picture


def opened(content: bytes) -> Gallery:
    return Gallery(len(content), lambda start, stop: content[start:stop])


def test_images_are_listed_by_split_class_and_source(checked: Check, tmp_path: Path) -> None:
    report = checked(pack(good_files(5)))
    gallery = opened((tmp_path / "out" / "gallery.bin").read_bytes())
    rows = gallery.rows(0, 100)
    assert gallery.rows(3, 5) == rows[3:5]
    assert gallery.rows(10, 12) == []
    assert gallery.count == 10
    order = {"train": 0, "val": 1, "test": 2}
    assert rows == sorted(rows, key=lambda row: (order[row.split], row.label, row.source))
    assert [row.number for row in rows] == list(range(10))
    assert report["splits"] == {"train": {"a": 4, "b": 4}, "test": {"a": 1, "b": 1}}


def test_rows_and_thumbnails_are_those_of_the_images(checked: Check, tmp_path: Path) -> None:
    colours = {f"{label}/{n}.png": 40 * n + 7 * ord(label) for label in "ab" for n in range(4)}
    checked(pack({name: picture("PNG", c, (200, 100)) for name, c in colours.items()}))
    with zipfile.ZipFile(tmp_path / "out" / "dataset.zip") as archive:
        index = DatasetIndex.model_validate_json(archive.read("index.json"))
    gallery = opened((tmp_path / "out" / "gallery.bin").read_bytes())
    for number, (row, image) in enumerate(zip(gallery.rows(0, 8), index.images, strict=True)):
        assert (row.sha256, row.source, row.width) == (image.sha256, image.source, 200)
        small = gallery.thumbnail(number)
        assert small is not None
        with Image.open(io.BytesIO(small)) as thumbnail:
            assert thumbnail.size == (128, 64)
            pixel = thumbnail.convert("RGB").getpixel((60, 30))
            assert isinstance(pixel, tuple)
            assert abs(pixel[0] - colours[row.source] % 256) < 6
    assert gallery.thumbnail(8) is None
    assert gallery.thumbnail(-1) is None


@pytest.mark.parametrize("content", [b"", b"TDMRGAL1", b"x" * 100, b"TDMRGAL1" + b"\xff" * 8])
def test_another_file_is_no_gallery(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a gallery"):
        opened(content)
