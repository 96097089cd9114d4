"""Which images INT8 is calibrated on."""

from __future__ import annotations

from tdmr.data.index import IndexedImage
from tdmr.export.int8 import sample


def image(number: int) -> IndexedImage:
    return IndexedImage(
        file=f"{number}.png",
        label="a",
        source="x",
        sha256=f"{number * 7919:064x}",
        width=1,
        height=1,
    )


def test_the_sample_is_seeded_and_blind_to_the_order() -> None:
    images = [image(number) for number in range(500)]
    chosen = sample(images, 200, seed=0)
    assert len({one.file for one in chosen}) == 200
    assert sample(images[::-1], 200, seed=0) == chosen
    assert sample(images, 200, seed=1) != chosen
    assert len(sample(images[:5], 200, seed=0)) == 5
