"""The evaluation of a student from its logits on held-out images: what evaluation.json holds.

images, split        what was judged, and which split that is
accuracy, interval   share classified right, and its 95 % Wilson interval
calibration          the temperature, what it was fitted on, and ECE and NLL before and after it
reliability          15 bins of confidence, before and after the temperature
per_class            recall, precision, one-against-the-rest accuracy, with counts
confusion            images of each class (row) said to be of each (column)
risk_coverage        share of errors among the most confident images, and the area below it
worst                the surest mistakes
baselines            the accuracies of the same split's baselines
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tdmr.data.index import IndexedImage
from tdmr.evaluation import figures, temperature
from tdmr.evaluation.figures import Floats, Ints

MOST_WORST = 50
MOST_POINTS = 100  # of the risk-coverage curve
CROSS_FITTED = "two halves of the held-out images"
_ROW = re.compile(r"\[\s+([-+\d.eE,\s]+?)\s+\]")


@dataclass(frozen=True)
class Judged:
    """A student's logits (images, classes), labels (images,), and where each image came from."""

    logits: Floats
    labels: Ints
    sources: list[str]

    @classmethod
    def of(
        cls, logits: npt.NDArray[np.float32], labels: Ints, images: Sequence[IndexedImage]
    ) -> Judged:
        """In double precision."""
        return cls(logits.astype(np.float64), labels, [image.source for image in images])


@dataclass(frozen=True)
class Evaluation:
    """evaluation.json's content, and the temperature that is published."""

    content: dict[str, Any]
    temperature: float

    @property
    def summary(self) -> dict[str, Any]:
        """What metrics.json says of it."""
        calibration = {k: v for k, v in self.content["calibration"].items() if k != "halves"}
        kept = {k: self.content[k] for k in ("split", "images", "accuracy", "interval")}
        return {**kept, **calibration, "aurc": self.content["risk_coverage"]["aurc"]}


def evaluate(
    held_out: Judged,
    classes: list[str],
    *,
    split: str,
    val: Judged | None,
    seed: int,
    baselines: dict[str, Any] | None = None,
) -> Evaluation:
    """Everything that a student's logits on held-out images say.

    The temperature is fitted on `val` where there is one; else on the held-out images, and judged
    crosswise on their halves. It changes no prediction. Numbers are in [0, 1], NLL in nats.
    """
    labels, predicted = held_out.labels, held_out.logits.argmax(axis=1)
    right = predicted == labels
    published, at, about = _temperature(held_out, val, seed)
    before, after = (figures.softmax(held_out.logits, t) for t in (1.0, at))
    bins = {
        name: figures.reliability(chances.max(axis=1), right)
        for name, chances in (("before", before), ("after", after))
    }
    low, high = figures.wilson(int(right.sum()), len(right))
    matrix = figures.confusion(labels, predicted, len(classes))
    shipped = figures.softmax(held_out.logits, published)
    risks = figures.risk_coverage(shipped.max(axis=1), right)
    content = {
        "format": 1,
        "split": split,
        "images": len(labels),
        "accuracy": round(float(right.mean()), 6),
        "interval": [round(low, 6), round(high, 6)],
        "calibration": {
            "temperature": published,
            **about,
            "bins": figures.BINS,
            "ece_before": round(figures.ece(bins["before"]), 6),
            "ece_after": round(figures.ece(bins["after"]), 6),
            "nll_before": round(figures.nll(before, labels), 6),
            "nll_after": round(figures.nll(after, labels), 6),
        },
        "reliability": bins,
        "per_class": figures.per_class(matrix, classes),
        "confusion": {"classes": classes, "counts": matrix.tolist()},
        "risk_coverage": {"aurc": round(figures.aurc(risks), 6), "points": _points(risks)},
        "worst": _worst(held_out, shipped, classes),
        "baselines": baselines or {},
    }
    return Evaluation(content, published)


def _temperature(
    held_out: Judged, val: Judged | None, seed: int
) -> tuple[float, float | Floats, dict[str, Any]]:
    """The temperature to publish, that to judge each image at, and what to say of them."""
    if val is not None:
        found = round(temperature.fit(val.logits, val.labels), 6)
        return found, found, {"fitted_on": "val", "fitting_images": len(val.labels), "halves": None}
    crossed = temperature.cross_fit(held_out.logits, held_out.labels, seed)
    found = round(temperature.fit(held_out.logits, held_out.labels), 6)
    at = crossed.of_the_other()
    right = held_out.logits.argmax(axis=1) == held_out.labels
    halves = []
    for number, half in enumerate((~crossed.second, crossed.second)):
        if not half.any():
            continue
        judged = [
            figures.ece(figures.reliability(chances.max(axis=1), right[half]))
            for chances in (
                figures.softmax(held_out.logits[half]),
                figures.softmax(held_out.logits[half], at[half]),
            )
        ]
        halves.append(
            {
                "images": int(half.sum()),
                "temperature": round(crossed.temperatures[number], 6),
                "ece_before": round(judged[0], 6),
                "ece_after": round(judged[1], 6),
            }
        )
    about = {"fitted_on": CROSS_FITTED, "fitting_images": len(right), "halves": halves}
    return found, at, about


def _points(risks: Floats) -> list[list[float]]:
    """Coverage and risk at up to MOST_POINTS places, the last of them all images."""
    count = len(risks)
    places = np.unique(np.linspace(1, count, min(count, MOST_POINTS)).round().astype(np.int64))
    return [[round(float(k / count), 6), round(float(risks[k - 1]), 6)] for k in places]


def _worst(judged: Judged, chances: Floats, classes: list[str]) -> list[dict[str, Any]]:
    """The mistakes that the student is surest of, the surest first."""
    predicted, labels = judged.logits.argmax(axis=1), judged.labels
    wrong = np.flatnonzero(predicted != labels)
    sure = chances[wrong, predicted[wrong]]
    return [
        {
            "source": judged.sources[place],
            "true": classes[labels[place]],
            "predicted": classes[predicted[place]],
            "probability": round(float(chances[place, predicted[place]]), 6),
            "probability_of_true": round(float(chances[place, labels[place]]), 6),
        }
        for place in wrong[np.argsort(-sure, kind="stable")][:MOST_WORST]
    ]


def write(path: Path, content: dict[str, Any]) -> None:
    """As JSON, indented, with each row of numbers on one line."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    rows = _ROW.sub(lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text)
    path.write_text(rows + "\n", encoding="utf-8")
