"""What both stages optimise with: AdamW, a warm-up and a cosine, and an average of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def adamw(module: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over what is trainable; vectors (biases, norms) are not decayed."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1.0, fused=True)


def set_rate(
    optimizer: torch.optim.Optimizer, step: int, steps: int, peak: float, warmup: float
) -> None:
    """A linear warm-up over the share `warmup` of the steps, then a cosine to zero.

    A function of the step alone, so that a resumed run needs no scheduler's state.
    """
    warm = warmup * steps
    if step < warm:
        factor = (step + 1) / (warm + 1)
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    for group in optimizer.param_groups:
        group["lr"] = peak * factor


@torch.no_grad()
def update_average(
    average: list[Tensor], parameters: list[Tensor], decay: float, step: int
) -> None:
    """Exponential moving average of the weights, with a short memory at the start."""
    rate = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(average, parameters, rate)
