"""Pixels: images decoded once, at the side a model sees them, as uint8 in memory-mapped files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from tdmr.data.colours import upright_rgb
from tdmr.data.index import IndexedImage
from tdmr.errors import DatasetError
from tdmr.store import ArrayStore

Pixels = npt.NDArray[np.uint8]
RECIPE = "exif-transpose,rgb,bicubic-shorter-side,centre-crop/1"


def decode(path: Path, size: int) -> Pixels:
    """One image as RGB, its shorter side resized to `size`, centre-cropped: (3, size, size).

    The arithmetic is that of timm's evaluation transform with `crop_pct=1` and bicubic
    interpolation, so that a bundle's own preprocessing gives the same pixels.
    Raises DatasetError for a file that isn't a readable image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            rgb = upright_rgb(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DatasetError(
            f"{path.name} isn't an image that can be read: {error}.",
            suggestion="Remove the file, or save it again as PNG, JPEG or WebP.",
        ) from error
    cropped = square(rgb, size)
    return np.ascontiguousarray(np.asarray(cropped, dtype=np.uint8).transpose(2, 0, 1))


def square(image: Image.Image, size: int) -> Image.Image:
    """The image with its shorter side resized to `size`, and its centre cropped: size x size."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    scaled = int(size * long / short)
    width, height = (size, scaled) if width <= height else (scaled, size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def pixel_store(
    folder: Path,
    images: Sequence[IndexedImage],
    size: int,
    store: ArrayStore,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> Pixels:
    """Every image of `images` in order: (images, 3, size, size), uint8, memory-mapped.

    `on_image(done, total)` is told of every image that had to be decoded.
    """
    ingredients = {
        "what": "pixels",
        "recipe": RECIPE,
        "size": size,
        "images": [image.sha256 for image in images],
    }
    found = store.find(ingredients)
    if found is not None:
        return found

    def fill(array: Pixels) -> None:
        for place, image in enumerate(images):
            array[place] = decode(folder / image.file, size)
            on_image(place + 1, len(images))

    return store.make(ingredients, (len(images), 3, size, size), np.uint8, fill)
