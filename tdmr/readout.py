"""The reprogrammed head, reused: what classifies a student that has learnt to read its input.

The student's last features are mapped linearly to what the reprogrammed head reads, and that head,
which nothing trains any more, classifies (SimKD, arXiv 2203.14001, does so with the foundation's
own). So a student can be taught without labels at first, and is a classifier all the same. Two
linear maps after one another are one: in the end they are folded into a classifier of the usual
shape, and nothing is left of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tdmr.probe import Ridge


class ReusedHead(nn.Module):
    """In a classifier's place: a trained `adapter`, and behind it a head that is fixed.

    `weight` (read, classes) and `bias` (classes,) are the head's, on standardised features of all
    taps of the foundation; `read` is the sum of their widths.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, width: int, read: int, classes: int) -> None:
        super().__init__()
        self.adapter = nn.Linear(width, read)
        self.register_buffer("weight", torch.zeros(read, classes))
        self.register_buffer("bias", torch.zeros(classes))

    @classmethod
    def of(cls, ridge: Ridge, width: int) -> ReusedHead:
        """A fresh adapter from `width` features to what `ridge` reads."""
        head = cls(width, *ridge.weight.shape)
        head.weight.copy_(ridge.weight * ridge.sharpness)
        head.bias.copy_(ridge.bias * ridge.sharpness)
        return head

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, width) to logits and, behind them, what they were read from.

        (n, classes + read): a classifier gives one tensor, and `split` takes it apart.
        """
        read = self.adapter(features)
        return torch.cat([read @ self.weight.to(read) + self.bias.to(read), read], dim=1)

    def split(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, classes) and what they were read from (n, read)."""
        classes = len(self.bias)
        return both[:, :classes], both[:, classes:]

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """The one linear map that gives the same logits."""
        inner, outer = self.adapter, self.weight.double()
        linear = nn.Linear(inner.in_features, len(self.bias)).to(self.weight)
        linear.weight.copy_((inner.weight.double().T @ outer).T)
        linear.bias.copy_(inner.bias.double() @ outer + self.bias)
        return linear
