"""Temperature scaling (Guo et al. 2017): one number that makes probabilities mean what they say.

It divides the logits, so that the class with the largest one stays the same. Where images of the
same kind must serve for fitting and for judging, they are halved, and each half is judged with the
temperature of the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tdmr.evaluation.figures import Bools, Floats, Ints, log_softmax

LARGEST = 20.0  # temperatures are looked for between this and its inverse
ROUNDS = 40  # of bisection: to 12 digits


def fit(logits: Floats, labels: Ints) -> float:
    """The temperature at which logits (images, classes) say best what labels (images,) are.

    It has the least negative log-likelihood; its own logarithm has a standard normal prior, which
    weighs about as much as one image. Without it, a few images that are all right would ask for
    a temperature of nothing, and for certainty. No image gives 1.
    """
    if len(labels) == 0:
        return 1.0
    truth = logits[np.arange(len(labels)), labels]

    def slope(log: float) -> float:
        """The derivative of the posterior's negative logarithm by the temperature's logarithm."""
        chances = np.exp(log_softmax(logits, math.exp(log)))
        expected = (chances * logits).sum(axis=1)
        return float((truth - expected).sum()) / math.exp(log) + log

    low, high = -math.log(LARGEST), math.log(LARGEST)
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return math.exp((low + high) / 2)


@dataclass(frozen=True)
class CrossFit:
    """Two halves of the same images: which are in the second, and the temperature of each half."""

    second: Bools
    temperatures: tuple[float, float]

    def of_the_other(self) -> Floats:
        """Per image, the temperature that it had no part in: (images, 1)."""
        first, second = self.temperatures
        return np.where(self.second, first, second)[:, None]


def cross_fit(logits: Floats, labels: Ints, seed: int) -> CrossFit:
    """Fit a temperature to each of two halves of the images."""
    second = halve(labels, seed)
    temperatures = tuple(fit(logits[half], labels[half]) for half in (~second, second))
    return CrossFit(second, (temperatures[0], temperatures[1]))


def halve(labels: Ints, seed: int) -> Bools:
    """Which images are in the second of two halves: (images,), a function of labels and seed.

    Each class is halved, and so are all images: to within one.
    """
    drawn = np.random.default_rng(seed).permutation(len(labels))
    by_class = drawn[np.argsort(labels[drawn], kind="stable")]
    second = np.zeros(len(labels), dtype=np.bool_)
    second[by_class[1::2]] = True
    return second
