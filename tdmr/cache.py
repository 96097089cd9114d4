"""The view cache: the foundation sees each stored view exactly once.

What is stored are pooled features *before* any projection, so that stage 1 can be trained again
for free, by later students, retries and sweeps. An entry that exists is checked live on 1 % of
its views before it is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import Tensor

from tdmr import views as view_module
from tdmr.data.pixels import Pixels
from tdmr.feed import clean_batches
from tdmr.models import Foundation
from tdmr.store import ArrayStore
from tdmr.views import Views

DTYPE = np.float16
BATCH = 128
# fp16 rounds at 2^-11; the rest is room for another batch's order of summation.
TOLERANCE = 4e-3


@dataclass(frozen=True)
class ViewFeatures:
    """Features of K views of N images: `array` is (K, N, sum of `widths`), tap after tap."""

    array: npt.NDArray[np.float16]
    widths: tuple[int, ...]
    reused: bool

    @property
    def bytes(self) -> int:
        """Size of the stored features."""
        return int(self.array.nbytes)


class ViewCache:
    """Finds or computes the features of every view of a training set."""

    def __init__(
        self, store: ArrayStore, foundation: Foundation, pixels: Pixels, views: Views
    ) -> None:
        self._store = store
        self._foundation = foundation
        self._pixels = pixels
        self._views = views

    def features(
        self,
        ingredients: dict[str, Any],
        *,
        on_views: Callable[[int, int], None] = lambda done, total: None,
        warn: Callable[[str], None] = lambda message: None,
    ) -> ViewFeatures:
        """The features of all views; `ingredients` name the dataset version and the split.

        `on_views(done, total)` is told of every batch that the foundation had to see. An entry
        that fails its live check is thrown away and made again, and `warn` is told.
        """
        found = self.find(ingredients, warn=warn)
        if found is None:
            made = self._make(self._ingredients(ingredients), on_views)
            found = ViewFeatures(made, self._foundation.widths, reused=False)
        return found

    def find(
        self, ingredients: dict[str, Any], *, warn: Callable[[str], None] = lambda message: None
    ) -> ViewFeatures | None:
        """The same where they are stored already and pass their live check; otherwise None."""
        named = self._ingredients(ingredients)
        found = self._store.find(named)
        if found is None:
            return None
        if not self._agrees(found):
            warn("The stored features differ from what the foundation gives now: thrown away.")
            self._store.drop(named)
            return None
        return ViewFeatures(found, self._foundation.widths, reused=True)

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(self._foundation.model.parameters()).device
        return device

    def _ingredients(self, named: dict[str, Any]) -> dict[str, Any]:
        return {
            **named,
            "what": "features",
            "foundation": self._foundation.fingerprint(),
            "taps": self._foundation.tap_indices,
            "widths": self._foundation.widths,
            "size": self._foundation.size,
            "views": self._views.options.model_dump(),
            "seed": self._views.seed,
            "recipe": view_module.RECIPE,
            "dtype": np.dtype(DTYPE).name,
            "device": self._device.type,
            "versions": {"torch": torch.__version__, "timm": timm.__version__},
        }

    def _make(
        self, named: dict[str, Any], on_views: Callable[[int, int], None]
    ) -> npt.NDArray[np.float16]:
        count, images = self._views.count, len(self._pixels)
        total = count * images

        def fill(array: npt.NDArray[np.float16]) -> None:
            flat = array.reshape(total, -1)
            for start in range(0, total, BATCH):
                pairs = np.arange(start, min(start + BATCH, total))
                flat[pairs] = self._compute(pairs).cpu().numpy()
                on_views(int(pairs[-1]) + 1, total)

        return self._store.make(named, (count, images, sum(self._foundation.widths)), DTYPE, fill)

    def _compute(self, pairs: npt.NDArray[np.int64]) -> Tensor:
        """Features of flat view numbers k * N + i: (pairs, sum of widths)."""
        view, image = np.divmod(pairs, len(self._pixels))
        seen = self._views.render(self._pixels, image, view, self._device)
        return torch.cat(self._foundation.features(seen), dim=1)

    def _agrees(self, stored: npt.NDArray[np.float16]) -> bool:
        """Compare 1 % of the views, at least one and at most a batch, with the foundation's."""
        flat = stored.reshape(-1, stored.shape[-1])
        count = min(BATCH, max(1, len(flat) // 100))
        pairs = np.linspace(0, len(flat) - 1, count).astype(np.int64)
        live = self._compute(pairs).cpu().numpy()
        scale = max(float(np.abs(live).max()), 1e-6)
        return bool(np.abs(live - flat[pairs].astype(np.float32)).max() <= TOLERANCE * scale)


def plain_features(
    store: ArrayStore,
    foundation: Foundation,
    pixels: Pixels,
    images: Sequence[str],
    on_images: Callable[[int, int], None] = lambda done, total: None,
) -> npt.NDArray[np.float16]:
    """Pooled features of images as they are, `images` being their SHA-256: (N, sum of widths).

    Stored like those of views, and reused. `on_images(done, total)` is told of every batch that
    the foundation had to see.
    """
    device: torch.device = next(foundation.model.parameters()).device
    named = {
        "what": "features",
        "of": "images as they are",
        "images": list(images),
        "foundation": foundation.fingerprint(),
        "taps": foundation.tap_indices,
        "widths": foundation.widths,
        "size": foundation.size,
        "dtype": np.dtype(DTYPE).name,
        "device": device.type,
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
    }
    found = store.find(named)
    if found is not None:
        return found

    def fill(array: npt.NDArray[np.float16]) -> None:
        done = 0
        for batch in clean_batches(pixels, BATCH, device):
            features = torch.cat(foundation.features(batch), dim=1)
            array[done : done + len(batch)] = features.cpu().numpy()
            done += len(batch)
            on_images(done, len(pixels))

    return store.make(named, (len(pixels), sum(foundation.widths)), DTYPE, fill)
