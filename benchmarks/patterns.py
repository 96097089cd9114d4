"""A target far from the foundations' letters: ten classes of patterns, drawn by numpy.

Every image is a pattern of random period, orientation, stretch and bend in a light and a dark
colour, under a light gradient, blurred, noisy and at times partly hidden. The images of a class are
a pure function of (seed, half, count), so train and test share no random number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float64]

SIZE = 32
CLASSES = (
    "bricks", "checks", "crosses", "dots", "rays", "rings", "scales", "stripes", "waves", "zigzag",
)  # fmt: skip
HALVES = {"train": 0, "test": 1}
PERIOD = (7.0, 10.0)  # pixels
TURN = 0.2  # largest rotation either way, radians
BEND = 0.3  # standard deviation of the shifts that bend the pattern, pixels
LIGHT, DARK, TINT = (0.6, 0.95), (0.05, 0.35), 0.05  # colours: grey levels, deviation per channel
HIDDEN = 0.2  # share of images partly covered
BLUR = (0.2, 0.7)  # standard deviation, pixels
SLOPE = 0.3  # largest relative change of light from the middle to a side
NOISE = (0.02, 0.05)  # standard deviation, channels in [0, 1]
_FINE = 2 * SIZE  # patterns are drawn at twice the size, against aliasing


def _inside(distance: Floats, edge: Floats) -> Floats:
    """1 where `distance` is below `edge`, else 0."""
    return (distance < edge).astype(np.float64)


def _cell(position: Floats) -> Floats:
    """Place in a unit cell around its middle, in [-0.5, 0.5)."""
    return position - np.floor(position) - 0.5


def _grid(u: Floats, v: Floats, offset: Floats) -> tuple[Floats, Floats]:
    """Places in the cells of a grid whose odd rows are pushed sideways by `offset` of a cell."""
    return _cell(u + offset * (np.floor(v) % 2)), _cell(v)


def _bricks(u: Floats, v: Floats, duty: Floats) -> Floats:
    x, y = _grid(u / 2, v, np.full_like(duty, 0.5))
    joint = 0.05 + 0.3 * duty
    return np.maximum(_inside(0.5 - np.abs(x), joint / 4), _inside(0.5 - np.abs(y), joint / 2))


def _checks(u: Floats, v: Floats, duty: Floats) -> Floats:
    narrow = 0.35 + 0.3 * duty
    return np.abs(_inside(_cell(u / 2) + 0.5, narrow) - _inside(_cell(v / 2) + 0.5, narrow))


def _crosses(u: Floats, v: Floats, duty: Floats) -> Floats:
    x, y = np.abs(_cell(u / 1.6)), np.abs(_cell(v / 1.6))
    arm, half_width = np.full_like(duty, 0.38), 0.05 + 0.12 * duty
    return np.maximum(
        _inside(x, arm) * _inside(y, half_width), _inside(y, arm) * _inside(x, half_width)
    )


def _dots(u: Floats, v: Floats, duty: Floats) -> Floats:
    x, y = _grid(u / 1.3, v / 1.3, np.where(duty < 0.5, 0.0, 0.5))
    return _inside(np.hypot(x, y), 0.2 + 0.2 * duty)


def _scales(u: Floats, v: Floats, duty: Floats) -> Floats:
    """Outlines of half discs, every row hanging over the next and pushed sideways by a half."""
    row, shown = np.floor(2 * v / 1.4), np.zeros_like(u)
    covered = np.zeros_like(u, dtype=bool)
    for lower in (1, 0):
        x = _cell(u / 1.4 + 0.5 * ((row - lower) % 2))
        distance = np.hypot(x, v / 1.4 - (row - lower) / 2)
        disc = ~covered & (distance < 0.5)
        shown = np.where(disc, _inside(0.5 - distance, 0.06 + 0.16 * duty), shown)
        covered |= disc
    return shown


def _stripes(u: Floats, v: Floats, duty: Floats) -> Floats:
    return _inside(_cell(u) + 0.5, 0.3 + 0.4 * duty)


def _waves(u: Floats, v: Floats, duty: Floats) -> Floats:
    return _stripes(u + 0.45 * np.sin(0.5 * np.pi * v), v, duty)


def _zigzag(u: Floats, v: Floats, duty: Floats) -> Floats:
    return _stripes(u + 2.2 * np.abs(_cell(v / 2)), v, duty)


_PERIODIC = {
    "bricks": _bricks,
    "checks": _checks,
    "crosses": _crosses,
    "dots": _dots,
    "scales": _scales,
    "stripes": _stripes,
    "waves": _waves,
    "zigzag": _zigzag,
}


def _smooth(field: Floats) -> Floats:
    """Images (n, knots, knots) enlarged to (n, 64, 64) by smooth interpolation."""
    knots = field.shape[-1]
    place = (np.arange(_FINE) + 0.5) / _FINE * (knots - 1)
    left = np.minimum(place.astype(int), knots - 2)
    part = place - left
    part = part * part * (3 - 2 * part)
    weights = np.zeros((_FINE, knots))
    weights[np.arange(_FINE), left], weights[np.arange(_FINE), left + 1] = 1 - part, part
    return weights @ field @ weights.T


def _coordinates(count: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Rotated, stretched and bent coordinates in pixels around the middle, two (n, 64, 64)."""
    axis = (np.arange(_FINE) + 0.5) / 2 - SIZE / 2
    x, y = np.meshgrid(axis, axis)
    bend = generator.normal(0, BEND, (2, count, 3, 3))
    x, y = x + _smooth(bend[0]), y + _smooth(bend[1])
    angle = generator.uniform(-TURN, TURN, (count, 1, 1))
    stretch = np.exp(generator.normal(0, 0.15, (count, 1, 1)))
    cos, sin = np.cos(angle), np.sin(angle)
    return (cos * x - sin * y) * stretch, (sin * x + cos * y) / stretch


def _masks(name: str, count: int, generator: np.random.Generator) -> Floats:
    """The bare patterns, (n, 64, 64) of zeros and ones."""
    period = generator.uniform(*PERIOD, (count, 1, 1))
    duty = generator.uniform(0, 1, (count, 1, 1))
    u, v = _coordinates(count, generator)
    shift = generator.uniform(-SIZE / 3, SIZE / 3, (2, count, 1, 1))
    u, v = u + shift[0], v + shift[1]
    rays = generator.integers(5, 10, (count, 1, 1))
    if name == "rings":
        return _stripes(np.hypot(u, v) / period, v, duty)
    if name == "rays":
        return _stripes(np.arctan2(v, u) * rays / (2 * np.pi), v, duty)
    return _PERIODIC[name](u / period, v / period, duty)


def _colours(count: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """A light and a dark colour per image, each (n, 3, 1, 1) in [0, 1]."""
    light = generator.uniform(*LIGHT, (count, 1)) + generator.normal(0, TINT, (count, 3))
    dark = generator.uniform(*DARK, (count, 1)) + generator.normal(0, TINT, (count, 3))
    return light.clip(0, 1)[:, :, None, None], dark.clip(0, 1)[:, :, None, None]


def _hide(images: Floats, generator: np.random.Generator) -> Floats:
    """Lay a rectangle of one colour over some of the images (n, 3, 64, 64)."""
    count = len(images)
    extent = generator.uniform(0.2, 0.55, (count, 2)) * _FINE
    corner = generator.uniform(0, 1, (count, 2)) * (_FINE - extent)
    colour = generator.uniform(0, 1, (count, 3, 1, 1))
    axis = np.arange(_FINE)
    within = [
        (axis >= corner[:, i, None]) & (axis < (corner + extent)[:, i, None]) for i in range(2)
    ]
    covered = within[0][:, None, :, None] & within[1][:, None, None, :]
    covered &= generator.random((count, 1, 1, 1)) < HIDDEN
    return np.where(covered, colour, images)


def _blur(images: Floats, sigma: Floats) -> Floats:
    """Gaussian blur of (n, 3, h, w), `sigma` in pixels, (n,)."""
    reach = np.arange(-4, 5)
    kernel = np.exp(-(reach**2) / (2 * np.maximum(sigma, 1e-3)[:, None] ** 2))
    kernel /= kernel.sum(1, keepdims=True)
    for axis in (2, 3):
        padding = [(4, 4) if each == axis else (0, 0) for each in range(4)]
        padded = np.pad(images, padding, mode="edge")
        size = images.shape[axis]
        images = sum(
            kernel[:, i, None, None, None] * padded.take(range(i, i + size), axis=axis)
            for i in range(len(reach))
        )
    return images


def _draw(name: str, count: int, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """`count` images of one class, (n, 32, 32, 3)."""
    mask = _masks(name, count, generator)[:, None]
    front, back = _colours(count, generator)
    images = _hide(back + (front - back) * mask, generator)
    images = images.reshape(count, 3, SIZE, 2, SIZE, 2).mean((3, 5))
    images = _blur(images, generator.uniform(*BLUR, count))
    slope = generator.uniform(-SLOPE, SLOPE, (2, count, 1, 1, 1))
    axis = np.linspace(-1, 1, SIZE)
    images = images * (1 + slope[0] * axis + slope[1] * axis[:, None])
    noise = generator.uniform(*NOISE, (count, 1, 1, 1))
    images = images + noise * generator.normal(size=images.shape)
    pixels = (images.clip(0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def draw(
    count: int, seed: int, half: str = "train"
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images (count, 32, 32, 3) and their places in CLASSES (count,), spread evenly and in order.

    The images of the halves "train" and "test" are drawn independently. Raises KeyError for
    another half.
    """
    labels = np.sort(np.arange(count) % len(CLASSES))
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for place, name in enumerate(CLASSES):
        rows = labels == place
        generator = np.random.default_rng([seed, HALVES[half], place])
        images[rows] = _draw(name, int(rows.sum()), generator)
    return images, labels


def write(folder: Path, shots: int, seed: int, held_out: int = 600) -> None:
    """Write train/CLASS/ and test/CLASS/ of 32 x 32 RGB PNG files.

    `shots` images per class are for training, `held_out` in all for testing. Raises
    FileExistsError where a folder has images already, which would mix two draws.
    """
    for half, count in (("train", shots * len(CLASSES)), ("test", held_out)):
        (folder / half).mkdir(parents=True)
        images, labels = draw(count, seed, half)
        for place, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / half / CLASSES[label] / f"{place:04}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
