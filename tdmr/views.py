"""Views: seeded augmentations that both sides replay exactly.

View (i, k) is a pure function of the dataset's hash, the seed, the image's place i and the view's
number k. Geometry is kept in normalised coordinates, so the foundation and the student see the
same crop and flip at their own resolutions. Storing such views, rather than augmenting anew, is
what lets a foundation run once per view (FKD, arXiv 2112.01528; TinyViT, arXiv 2207.10666).

Some views are mixtures of two images (mixup, arXiv 1710.09412): between the few images that there
are, labels say little and the foundation still knows what it sees (FunMatch, arXiv 2106.05237).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tdmr.config import ViewOptions
from tdmr.data.pixels import Pixels

RECIPE = "affine-border-bilinear,brightness,contrast,mixture/2"
PIECE = 1 << 17  # pixels of one channel that a CPU augments at once
_DRAWS = 12  # random numbers per view


Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ViewParams:
    """What happens to each of n images: `theta` (n, 2, 3), `gain` (n,) and `bias` (n,)."""

    theta: Tensor
    gain: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Mixture:
    """The images that n views are mixed with (n,), and the share (n,) that stays; 1 is unmixed."""

    partners: Places
    share: npt.NDArray[np.float32]


class Views:
    """Draws the parameters of views, and applies them."""

    def __init__(self, options: ViewOptions, dataset_version: str, seed: int) -> None:
        self.options = options
        self.seed = seed
        digest = hashlib.sha256(f"{dataset_version}:{seed}".encode()).digest()
        self._key = np.uint64(int.from_bytes(digest[:8], "little"))

    @property
    def count(self) -> int:
        """Stored views per image; `ViewOptions.counted` has settled it."""
        assert self.options.count is not None
        return self.options.count

    def params(self, images: Places, views: Places) -> ViewParams:
        """The parameters of view `views[j]` of image `images[j]`, for n pairs."""
        o = self.options
        u = _uniform(self._key, images, views)  # (n, _DRAWS) in [0, 1)
        signed = 2 * u - 1
        angle = np.deg2rad(o.rotate) * signed[:, 0]
        shear = np.tan(np.deg2rad(o.shear) * signed[:, 1])
        zoom = np.exp(_between(u[:, 2:4], math.log(o.scale_min), math.log(o.scale_max)))
        mirror = np.where(u[:, 4] < o.flip, -1.0, 1.0)
        cos, sin = np.cos(angle), np.sin(angle)
        theta = np.empty((len(u), 2, 3))
        # affine_grid maps output to input: a zoom in reads a smaller part of the image.
        theta[:, 0, 0] = cos / zoom[:, 0] * mirror
        theta[:, 0, 1] = (cos * shear - sin) / zoom[:, 1]
        theta[:, 1, 0] = sin / zoom[:, 0] * mirror
        theta[:, 1, 1] = (sin * shear + cos) / zoom[:, 1]
        theta[:, :, 2] = 2 * o.translate * signed[:, 5:7]
        return ViewParams(
            theta=torch.from_numpy(theta.astype(np.float32)),
            gain=torch.from_numpy((1 + o.contrast * signed[:, 7]).astype(np.float32)),
            bias=torch.from_numpy((o.brightness * signed[:, 8]).astype(np.float32)),
        )

    def mixture(self, images: Places, views: Places, count: int) -> Mixture:
        """What view `views[j]` of image `images[j]`, of `count` images, is mixed with."""
        u = _uniform(self._key, images, views)[:, 9:]
        mixed = u[:, 0] < self.options.mix
        return Mixture(
            partners=np.minimum((u[:, 1] * count).astype(np.int64), count - 1),
            share=np.where(mixed, _between(u[:, 2], 0.5, 1.0), 1.0).astype(np.float32),
        )

    def render(
        self,
        pixels: Pixels | Tensor,
        images: Places,
        views: Places,
        device: torch.device,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> Tensor:
        """The views themselves: (n, 3, side, side) in [0, 1], on `device`, of images in `pixels`.

        `pixels` are in memory, in a file that is mapped into it, or already on `device`. `layout`
        is that of the result.
        """
        seen = self._single(pixels, images, views, device, layout)
        if not self.options.mix:
            return seen
        mixture = self.mixture(images, views, len(pixels))
        mixed = np.flatnonzero(mixture.share < 1)
        if len(mixed):
            partners = mixture.partners[mixed]
            other = self._single(pixels, partners, views[mixed], device, layout)
            share = to_device(1 - mixture.share[mixed], device).view(-1, 1, 1, 1)
            rows = to_device(mixed, device)
            seen[rows] = torch.lerp(seen[rows], other, share)
        return seen

    def soft_labels(self, labels: Tensor, classes: int, images: Places, views: Places) -> Tensor:
        """The classes of views, in the shares of their mixture: (n, classes), on the CPU."""
        own = F.one_hot(labels[torch.from_numpy(images)], classes).float()
        if not self.options.mix:
            return own
        mixture = self.mixture(images, views, len(labels))
        share = torch.from_numpy(mixture.share).unsqueeze(1)
        other = F.one_hot(labels[torch.from_numpy(mixture.partners)], classes).float()
        return share * own + (1 - share) * other

    def _single(
        self,
        pixels: Pixels | Tensor,
        images: Places,
        views: Places,
        device: torch.device,
        layout: torch.memory_format,
    ) -> Tensor:
        return self.apply(_rows(pixels, images, device), self.params(images, views), layout)

    @staticmethod
    def apply(
        images: Tensor,
        params: ViewParams,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> Tensor:
        """Turn uint8 images (n, 3, h, w) into augmented float images in [0, 1], same shape."""
        device = images.device
        theta, gain, bias = (to_device(p, device) for p in (params.theta, params.gain, params.bias))
        # A few images at a time stay in a processor's cache. A mean over one image alone would be
        # summed in another order than over two.
        pieces = max(1, len(images) // max(2, PIECE // images[0, 0].numel()))
        if pieces == 1 or device.type != "cpu":
            return _augment(images, theta, gain, bias).contiguous(memory_format=layout)
        seen = torch.empty(images.shape, memory_format=layout)
        tensors = (seen, images, theta, gain, bias)
        for out, *given in zip(*(t.tensor_split(pieces) for t in tensors), strict=True):
            out.copy_(_augment(*given))
        return seen


def to_device(values: Tensor | npt.NDArray[Any], device: torch.device) -> Tensor:
    """The values on `device`, without waiting for what the device still has to do."""
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    return tensor.to(device, non_blocking=True)


def _rows(pixels: Pixels | Tensor, images: Places, device: torch.device) -> Tensor:
    """Raw images (n, 3, h, w), uint8, on `device`."""
    if isinstance(pixels, Tensor):
        return pixels[to_device(images, pixels.device)]
    if device.type != "cuda":
        return to_device(np.asarray(pixels[images]), device)
    shape = (len(images), *pixels.shape[1:])
    pinned = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
    # Into the pinned memory itself: with numpy's default mode, by way of a buffer.
    np.take(pixels, images, axis=0, out=pinned.numpy(), mode="clip")
    return to_device(pinned, device)


def _augment(images: Tensor, theta: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    x = images.float().div_(255)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    gain, bias = gain.view(-1, 1, 1, 1), bias.view(-1, 1, 1, 1)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return x.sub_(mean).mul_(gain).add_(mean).add_(bias).clamp_(0, 1)


def _between(u: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    return low + (high - low) * u


def _uniform(key: np.uint64, images: Places, views: Places) -> npt.NDArray[np.float64]:
    """Counter-based uniforms (n, _DRAWS): SplitMix64 (Steele et al., OOPSLA 2014) of the pair."""
    with np.errstate(over="ignore"):
        base = _mix(_mix(key + images.astype(np.uint64)) + views.astype(np.uint64))
        step = np.uint64(0x9E3779B97F4A7C15)
        draws = base[:, None] + step * np.arange(1, _DRAWS + 1, dtype=np.uint64)
        return (_mix(draws) >> np.uint64(11)).astype(np.float64) / 2.0**53


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = np.asarray(x, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
