"""The foundation sees each view once, and what is stored is checked before it is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmr.cache import ViewCache
from tdmr.config import ViewOptions
from tdmr.models import Foundation, load_foundation
from tdmr.store import ArrayStore
from tdmr.views import Views

IMAGES, COUNT = 10, 4


class Bench:
    """A foundation, images, and caches over one store."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.root = root
        self.foundation: Foundation = load_foundation(
            f"local-dir:{folder}", None, 2, torch.device("cpu")
        )
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 256, (IMAGES, 3, 32, 32), dtype=np.uint8)

    def cache(self, seed: int = 0, **views: Any) -> ViewCache:
        options = ViewOptions(count=COUNT, **views)
        return ViewCache(
            ArrayStore(self.root), self.foundation, self.pixels, Views(options, "v", seed)
        )


@pytest.fixture
def bench(foundation_folder: Path, tmp_path: Path) -> Bench:
    return Bench(foundation_folder, tmp_path)


def test_cold_once_per_view_and_warm_one_in_a_hundred(bench: Bench) -> None:
    seen: list[tuple[int, int]] = []
    first = bench.cache().features({"d": 1}, on_views=lambda *pair: seen.append(pair))
    assert (bench.foundation.forwards, first.reused) == (IMAGES * COUNT, False)
    assert seen[-1] == (40, 40)
    assert first.array.shape == (COUNT, IMAGES, 192)
    assert first.bytes == COUNT * IMAGES * 192 * 2

    second = bench.cache().features({"d": 1})
    assert (bench.foundation.forwards, second.reused) == (IMAGES * COUNT + 1, True)
    assert np.array_equal(first.array, second.array)


def test_a_stored_row_is_the_feature_of_its_view(bench: Bench) -> None:
    stored = bench.cache().features({}).array
    views = Views(ViewOptions(count=COUNT), "v", 0)
    raw = torch.from_numpy(bench.pixels[7:8])
    seen = views.apply(raw, views.params(np.array([7]), np.array([2])))
    live = torch.cat(bench.foundation.features(seen), dim=1)[0].numpy()
    np.testing.assert_allclose(stored[2, 7], live, atol=2e-2, rtol=2e-3)


@pytest.mark.parametrize("change", [{"seed": 1}, {"rotate": 1.0}, {"named": {"d": 2}}])
def test_anything_else_is_another_entry(bench: Bench, change: dict[str, Any]) -> None:
    bench.cache().features({"d": 1})
    named = change.pop("named", {"d": 1})
    assert not bench.cache(**change).features(named).reused


def test_other_weights_are_another_entry(bench: Bench) -> None:
    bench.cache().features({})
    with torch.no_grad():
        next(bench.foundation.model.parameters()).add_(1e-3)
    assert not bench.cache().features({}).reused


def test_a_tampered_entry_is_made_again_and_told(bench: Bench) -> None:
    good = np.array(bench.cache().features({}).array)
    (path,) = bench.root.glob("*/array.npy")
    tampered = np.lib.format.open_memmap(path, mode="r+")
    tampered += 1
    tampered.flush()
    warnings: list[str] = []
    again = bench.cache().features({}, warn=warnings.append)
    assert not again.reused
    assert np.array_equal(again.array, good)
    assert len(warnings) == 1
