"""The proxy space: where the foundation's knowledge, bent to the task, meets the student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOOR = 0.3  # of a dimension's relevance, in mean relevances
COSINE_SCALE = 16.0  # of cosine logits: softmax over [-1, 1] alone can't become certain


@dataclass(frozen=True)
class Targets:
    """What n views are taught: per tap `proxies` (n, its width), and `logits` (n, classes).

    `standard` (n, sum of the taps' widths) is what a reused head is to read.
    """

    proxies: Sequence[Tensor]
    logits: Tensor
    standard: Tensor


class ProxySpace(nn.Module):
    """Per tap: standardise, bend to the task, and classify by cosine.

    Standardising comes first because a few dimensions of raw transformer features dominate all
    others. With `proxy_dim`, taps are projected to that width and have trained heads; with None
    each dimension is only weighed (`relevance`), and the space has no heads of its own.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor  # (sum of widths,); of the space without projections

    def __init__(self, widths: Sequence[int], proxy_dim: int | None, classes: int) -> None:
        super().__init__()
        self.widths = list(widths)
        self.dims = list(widths) if proxy_dim is None else [proxy_dim] * len(self.widths)
        self.register_buffer("mean", torch.zeros(sum(widths)))
        self.register_buffer("std", torch.ones(sum(widths)))
        self.project: nn.ModuleList | None = None
        if proxy_dim is None:
            self.register_buffer("weight", torch.ones(sum(widths)))
            self.register_parameter("heads", None)
            return
        self.project = nn.ModuleList(nn.Linear(w, proxy_dim, bias=False) for w in widths)
        self.heads = nn.Parameter(torch.randn(len(self.widths), classes, proxy_dim))

    def standardise(self, features: Tensor) -> Tensor:
        """Zero mean and unit variance over the training views: (n, sum of widths)."""
        return (features.float() - self.mean) / self.std

    def forward(self, standard: Tensor) -> list[Tensor]:
        """Proxies of standardised features (n, sum of widths): per tap (n, its dim)."""
        if self.project is None:
            return list(torch.split(standard * self.weight, self.widths, dim=1))
        parts = torch.split(standard, self.widths, dim=1)
        return [project(part) for project, part in zip(self.project, parts, strict=True)]

    def logits(self, proxies: Sequence[Tensor]) -> Tensor:
        """Cosine logits of each tap's trained head: per tap (n, dim) to (n, taps, classes)."""
        z = F.normalize(torch.stack(list(proxies), dim=1), dim=-1)
        heads = F.normalize(self.heads, dim=-1)
        return COSINE_SCALE * torch.einsum("ntd,tcd->ntc", z, heads)


def relevance(standard: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """How much the task turns on each dimension: (n, width) to (width,), the root of a variance.

    `images` (n,) says which image a row is a view of, `labels` (images,) its class. The variance
    between classes is that of a one-way random-effects analysis, so that what few images vary by
    chance isn't taken for a difference between classes; FLOOR of its mean is added to all, because
    what the labels at hand don't need may still tell images apart.
    """
    count, classes = len(labels), int(labels.max()) + 1
    of_image = _means(standard, images, count)
    sizes = labels.bincount(minlength=classes).to(standard)
    of_class = _means(of_image, labels, classes)
    spread = (of_image - of_class[labels]).square()
    noise = torch.zeros_like(of_class).index_add_(0, labels, spread)
    several = sizes > 1
    chance = (noise[several] / ((sizes - 1) * sizes)[several].unsqueeze(1)).mean(dim=0)
    between = of_class[sizes > 0].var(dim=0) - chance.nan_to_num(0.0)
    between = between.clamp_min(0.0) / standard.var(dim=0).clamp_min(1e-6)
    return (FLOOR + between / between.mean().clamp_min(1e-6)).sqrt()


def _means(rows: Tensor, groups: Tensor, count: int) -> Tensor:
    """The mean row of each group: (n, width) and (n,) to (count, width); 0 for an empty one."""
    sums = rows.new_zeros(count, rows.shape[1]).index_add_(0, groups, rows)
    return sums / groups.bincount(minlength=count).clamp_min(1).unsqueeze(1)
