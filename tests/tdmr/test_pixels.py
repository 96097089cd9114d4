"""Decoding gives the pixels that a bundle's own preprocessing gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tdmr.data.pixels import decode
from tdmr.errors import DatasetError
from tests.shapes import draw


@pytest.mark.parametrize("shape", [(40, 40), (57, 33), (20, 91), (8, 8)])
def test_as_timm_preprocesses(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "image.png"
    draw("cross", 3, 100).resize(shape).save(path)
    transform = timm.data.create_transform(
        input_size=(3, 32, 32), interpolation="bicubic", crop_pct=1.0, mean=(0,) * 3, std=(1,) * 3
    )
    with Image.open(path) as image:
        theirs = transform(image.convert("RGB"))
    ours = torch.from_numpy(decode(path, 32)).float() / 255
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 32))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 3  # rotated by 180 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    assert decode(tmp_path / "turned.png", 32)[0, 31, 31] == 255


def test_sixteen_bit_grey_is_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.full((32, 32), 32768, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert decode(tmp_path / "deep.png", 32)[1, 5, 5] == 127


def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    draw("circle", 1).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DatasetError, match=r"cut\.png"):
        decode(path, 32)
