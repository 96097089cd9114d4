"""Paired comparison over seeds: mean difference and its Student interval, with no dependency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

HALVINGS = 60  # of an angle below pi / 2: to the last bit of a double


@dataclass(frozen=True)
class Paired:
    """Mean of ours minus theirs, its 95 % interval, and in how many of `n` pairs ours was better.

    `low` and `high` are None for a single pair, which says nothing about its own spread.
    """

    mean: float
    low: float | None
    high: float | None
    wins: int
    n: int

    def __str__(self) -> str:
        """For a table: `+0.0123 (+0.0050 to +0.0196), 5/5`."""
        spread = "" if self.low is None else f" ({self.low:+.4f} to {self.high:+.4f})"
        return f"{self.mean:+.4f}{spread}, {self.wins}/{self.n}"


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """Compare two methods measured on the same seeds, in the same order.

    The interval is Student's for the mean of the differences. Raises ValueError for sequences of
    different lengths, and statistics.StatisticsError for empty ones.
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    middle, n = mean(differences), len(differences)
    wins = sum(difference > 0 for difference in differences)
    if n == 1:
        return Paired(middle, None, None, wins, n)
    half = t_quantile(0.975, n - 1) * stdev(differences) / math.sqrt(n)
    return Paired(middle, middle - half, middle + half, wins, n)


def t_quantile(probability: float, freedom: int) -> float:
    """The value that Student's t with `freedom` degrees of freedom is below with `probability`.

    Inverts the closed form for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)
    by bisection. Raises ValueError for a probability outside (0, 1) or fewer than 1 degree.
    """
    if not 0 < probability < 1 or freedom < 1:
        raise ValueError("needs a probability between 0 and 1, and at least 1 degree of freedom")
    central = abs(2 * probability - 1)
    low, high = 0.0, math.pi / 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _central(middle, freedom) < central else (low, middle)
    return math.copysign(math.sqrt(freedom) * math.tan((low + high) / 2), probability - 0.5)


def _central(angle: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) * tan(angle)), a finite sum of powers of the cosine."""
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2 == 1
    term = cosine if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
