"""The demo's dataset: scikit-learn's handwritten digits, a few labelled ones per class.

1,797 real images of 8 x 8 pixels. `shots` per class, drawn by `seed`, are for training; all the
rest is held out. The split is part of the upload: train/ and test/ folders.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

COUNT = 1797


def split(
    labels: npt.NDArray[np.int64], shots: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Places of the training images, `shots` per class, and of all the rest."""
    generator = np.random.default_rng(seed)
    chosen = np.concatenate(
        [generator.permutation(np.flatnonzero(labels == c))[:shots] for c in np.unique(labels)]
    )
    return np.sort(chosen), np.setdiff1d(np.arange(len(labels)), chosen)


def write(folder: Path, shots: int, seed: int, only: npt.NDArray[np.int64] | None = None) -> None:
    """Write train/ and test/ folders of 8 x 8 grey PNG files, named by their place in the set."""
    digits = load_digits()
    pixels = (digits.images / 16 * 255).round().astype(np.uint8)
    places = np.arange(len(pixels)) if only is None else only
    train, test = split(digits.target[places], shots, seed)
    for name, rows in (("train", train), ("test", test)):
        for place in places[rows]:
            path = folder / name / str(digits.target[place]) / f"{place:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[place]).save(path)
