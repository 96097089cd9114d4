"""What is seen of an image before it's decoded: whether it is whole, and what it would cost."""

from __future__ import annotations

import zlib

import pytest

from app.datasets.images import ImageError, canonical
from app.datasets.structure import (
    MAX_RATIO,
    MAX_SCANS,
    RATIO_FLOOR,
    StructureError,
    check_png,
    packs_too_well,
    too_many_scans,
)
from tests.app.datasets.corpus.pictures import chunk, header, png_of

# 8 x 8 pixels in seven passes: the bytes of each line, and one for its filter (section 8.1).
LACED = 4 + 4 + 7 + 2 * 7 + 2 * 13 + 4 * 13 + 4 * 25


def png(raw: int, *fields: int) -> bytes:
    """A PNG whose data unpacks to so many zeros."""
    return png_of(header(*fields), chunk(b"IDAT", zlib.compress(bytes(raw))), chunk(b"IEND"))


@pytest.mark.parametrize(
    ("fields", "raw"),
    [
        ((8, 8, 8, 2), 8 * 25),
        ((9, 5, 1, 0), 5 * 3),
        ((9, 5, 2, 0), 5 * 4),
        ((7, 3, 16, 6), 3 * 57),
        ((7, 3, 16, 4), 3 * 29),
        ((8, 8, 8, 2, 0, 0, 1), LACED),
        ((1, 1, 8, 2, 0, 0, 1), 4),
        ((5, 1, 8, 0, 0, 0, 1), 2 + 2 + 2 + 3),
    ],
)
def test_a_png_has_a_byte_for_every_pixel_and_line(fields: tuple[int, ...], raw: int) -> None:
    check_png(png(raw, *fields))
    canonical(png(raw, *fields), 1000)
    with pytest.raises(StructureError, match="missing"):
        check_png(png(raw - 1, *fields))


def test_pillow_takes_a_png_that_lacks_half_of_its_lines() -> None:
    """What the look is there for: the rest would be black."""
    with pytest.raises(ImageError, match="missing") as caught:
        canonical(png(4 * 25, 8, 8), 1000)
    assert caught.value.code == "unreadable_image"


def test_a_damaged_chunk_that_pillow_passes_over_is_seen() -> None:
    good = png(8 * 25, 8, 8)
    place = good.index(b"IEND") - 5
    with pytest.raises(StructureError, match="checksum"):
        check_png(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])


def test_what_is_small_may_be_packed_as_well_as_it_likes() -> None:
    assert not packs_too_well(RATIO_FLOOR, b"")
    assert packs_too_well(RATIO_FLOOR + 1, b"x")
    assert not packs_too_well(2 * RATIO_FLOOR, bytes(2 * RATIO_FLOOR // MAX_RATIO + 1))


def test_scans_are_limited_by_number_and_by_what_they_go_over() -> None:
    usual = b"\xff\xda" * 10
    assert not too_many_scans(10_000, 10_000, usual, 100_000_000)
    assert too_many_scans(10_000, 10_000, usual * 2, 100_000_000)
    assert not too_many_scans(100, 100, b"\xff\xda" * MAX_SCANS, 100_000_000)
    assert too_many_scans(100, 100, b"\xff\xda" * (MAX_SCANS + 1), 100_000_000)
