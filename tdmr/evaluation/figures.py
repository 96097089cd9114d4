"""Figures of a classifier's outputs on labelled images. numpy alone, in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BINS = 15  # of equal width, as in Guo et al. 2017
NORMAL = 1.959964  # 95 % of a normal distribution lie within so many deviations


def wilson(right: int, count: int, z: float = NORMAL) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson, JASA 1927); 95 % by default."""
    p = right / count
    centre = p + z * z / (2 * count)
    spread = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return (centre - spread) / scale, (centre + spread) / scale


def log_softmax(logits: Floats, temperature: float | Floats = 1.0) -> Floats:
    """Logarithms of the probabilities of logits (images, classes): of the same shape.

    `temperature` is one for all images, or one for each: (images, 1).
    """
    scaled = logits / temperature
    shifted = scaled - scaled.max(axis=1, keepdims=True)
    whole: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return whole


def softmax(logits: Floats, temperature: float | Floats = 1.0) -> Floats:
    """Probabilities of logits (images, classes): of the same shape."""
    return np.exp(log_softmax(logits, temperature))


def nll(probabilities: Floats, labels: Ints) -> float:
    """The mean negative log-likelihood of labels (images,), in nats."""
    of_truth = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(of_truth, np.finfo(np.float64).tiny)).mean())


def confusion(labels: Ints, predicted: Ints, classes: int) -> Ints:
    """How many images of each class (row) are said to be of each (column): (classes, classes)."""
    places = labels * classes + predicted
    return np.bincount(places, minlength=classes * classes).reshape(classes, classes)


def per_class(matrix: Ints, names: list[str]) -> list[dict[str, Any]]:
    """One row per class of a confusion matrix; what can't be said of a class is None.

    `recall` is the share of the class's images that are found, with its 95 % interval;
    `precision` the share of those said to be of it that are; `accuracy` the share of all images
    that are rightly said to be of it, or not to be.
    """
    total, rows = int(matrix.sum()), []
    for place, name in enumerate(names):
        right = int(matrix[place, place])
        images, predicted = int(matrix[place].sum()), int(matrix[:, place].sum())
        interval = [round(end, 6) for end in wilson(right, images)] if images else None
        rows.append(
            {
                "class": name,
                "images": images,
                "predicted": predicted,
                "right": right,
                "accuracy": round((total - images - predicted + 2 * right) / total, 6),
                "precision": round(right / predicted, 6) if predicted else None,
                "recall": round(right / images, 6) if images else None,
                "recall_interval": interval,
            }
        )
    return rows


def reliability(confidence: Floats, right: Bools, bins: int = BINS) -> list[dict[str, Any]]:
    """Per bin of confidence (low, high]: how many images, their mean confidence and accuracy.

    `confidence` (images,) is the probability of the predicted class, `right` (images,) whether
    that is the image's. Of an empty bin, confidence and accuracy are None.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    sure = np.bincount(place, weights=confidence, minlength=bins)
    true = np.bincount(place, weights=right.astype(np.float64), minlength=bins)
    return [
        {
            "low": round(float(edges[number]), 6),
            "high": round(float(edges[number + 1]), 6),
            "images": int(count[number]),
            "confidence": float(sure[number] / count[number]) if count[number] else None,
            "accuracy": float(true[number] / count[number]) if count[number] else None,
        }
        for number in range(bins)
    ]


def ece(bins: list[dict[str, Any]]) -> float:
    """Expected calibration error of `reliability`'s bins, 0 to 1 (Guo et al. 2017, eq. 3)."""
    total = sum(row["images"] for row in bins)
    gaps = (
        row["images"] * abs(row["accuracy"] - row["confidence"]) for row in bins if row["images"]
    )
    return float(sum(gaps) / total)


def risk_coverage(confidence: Floats, right: Bools) -> Floats:
    """The share of errors among the k most confident images, for k from 1 on: (images,).

    Images of the same confidence count as if their order were drawn: errors are spread evenly.
    (El-Yaniv and Wiener, JMLR 2010.)
    """
    order = np.argsort(-confidence, kind="stable")
    sure, wrong = confidence[order], (~right[order]).astype(np.float64)
    _, group, size = np.unique(-sure, return_inverse=True, return_counts=True)
    shares = np.bincount(group, weights=wrong) / size
    risks: Floats = np.cumsum(shares[group]) / np.arange(1, len(sure) + 1)
    return risks


def aurc(risks: Floats) -> float:
    """Area under the risk-coverage curve (Geifman et al., ICLR 2019): the mean risk, 0 to 1."""
    return float(risks.mean())
