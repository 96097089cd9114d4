"""The proxy space: where the foundation's knowledge, bent to the task, meets the student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COSINE_SCALE = 16.0  # of cosine logits: softmax over [-1, 1] alone can't become certain


@dataclass(frozen=True)
class Targets:
    """What n views are taught: per tap `proxies` (n, its width), and `logits` (n, classes)."""

    proxies: Sequence[Tensor]
    logits: Tensor


class ProxySpace(nn.Module):
    """Per tap: standardise, project, and classify by cosine.

    Standardising comes first because a few dimensions of raw transformer features dominate all
    others. The decoder serves the preservation term and is used in stage 1 only.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, widths: Sequence[int], proxy_dim: int, classes: int) -> None:
        super().__init__()
        self.widths = list(widths)
        self.proxy_dim = proxy_dim
        self.register_buffer("mean", torch.zeros(sum(widths)))
        self.register_buffer("std", torch.ones(sum(widths)))
        self.project = nn.ModuleList(nn.Linear(w, proxy_dim, bias=False) for w in widths)
        self.heads = nn.Parameter(torch.randn(len(self.widths), classes, proxy_dim))

    def standardise(self, features: Tensor) -> Tensor:
        """Zero mean and unit variance over the training views: (n, sum of widths)."""
        return (features.float() - self.mean) / self.std

    def forward(self, standard: Tensor) -> Tensor:
        """Proxies of standardised features: (n, sum of widths) to (n, taps, proxy_dim)."""
        parts = torch.split(standard, self.widths, dim=1)
        projected = [p(part) for p, part in zip(self.project, parts, strict=True)]
        return torch.stack(projected, dim=1)

    def logits(self, proxies: Tensor) -> Tensor:
        """Cosine logits of each tap's head: (n, taps, proxy_dim) to (n, taps, classes)."""
        z, heads = F.normalize(proxies, dim=-1), F.normalize(self.heads, dim=-1)
        return COSINE_SCALE * torch.einsum("ntd,tcd->ntc", z, heads)
