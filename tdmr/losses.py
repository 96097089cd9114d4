"""The losses of both stages. Every one is a mean over the batch, computed in fp32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - cos of paired rows: a, b (..., dim) to (...)."""
    return 1 - F.cosine_similarity(a.float(), b.float(), dim=-1)


def relation(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square difference of the two batches' linear kernels: (batch, dim) to ().

    The kernel is that of batch-centred, L2-normalised rows, as in AFT (arXiv 2406.07337); the
    dims of a and b may differ.
    """
    return (_kernel(a) - _kernel(b)).square().mean().add(1e-12).sqrt()


def cka_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - linear CKA (Kornblith et al., arXiv 1905.00414): a (batch, d), b (batch, e) to ()."""
    a = a.float() - a.float().mean(dim=0)
    b = b.float() - b.float().mean(dim=0)
    # By Gram matrices: batch x batch is smaller than d x e for wide features.
    gram_a, gram_b = a @ a.T, b @ b.T
    norms: Tensor = torch.linalg.norm(gram_a) * torch.linalg.norm(gram_b)
    return 1 - (gram_a * gram_b).sum() / norms.clamp_min(1e-12)


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """tau^2 KL(teacher || student) of logits (batch, classes) (Hinton et al., 1503.02531)."""
    log_p = F.log_softmax(student.float() / temperature, dim=-1)
    log_q = F.log_softmax(teacher.float() / temperature, dim=-1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True) * temperature**2


def _kernel(x: Tensor) -> Tensor:
    x = x.float()
    x = F.normalize(x - x.mean(dim=0), dim=-1)
    return x @ x.T


def as_numbers(parts: dict[str, Tensor]) -> dict[str, float]:
    """Named losses as plain numbers, in one transfer."""
    values = torch.stack([part.detach().float() for part in parts.values()]).tolist()
    return dict(zip(parts, values, strict=True))
