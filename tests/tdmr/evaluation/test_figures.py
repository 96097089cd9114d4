"""Figures against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tdmr.evaluation import figures

TRUTH = np.array([0, 0, 0, 1, 1, 2])
SAID = np.array([0, 0, 1, 1, 0, 0])
NAMES = ["cat", "dog", "owl", "yak"]  # nothing is a yak, and nothing is said to be one


def test_confusion_has_true_classes_in_rows() -> None:
    matrix = figures.confusion(TRUTH, SAID, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_each_class() -> None:
    cat, dog, owl, yak = figures.per_class(figures.confusion(TRUTH, SAID, 4), NAMES)
    assert [row["class"] for row in (cat, dog, owl, yak)] == NAMES
    assert (cat["images"], cat["predicted"], cat["right"]) == (3, 4, 2)
    assert (cat["recall"], cat["precision"]) == (pytest.approx(2 / 3, abs=1e-6), 0.5)
    assert cat["accuracy"] == 0.5  # images 0, 1 and 3 of 6
    assert (dog["recall"], dog["precision"], dog["accuracy"]) == (0.5, 0.5, 0.666667)
    assert (owl["recall"], owl["precision"]) == (0.0, None)
    assert (yak["recall"], yak["precision"], yak["accuracy"]) == (None, None, 1.0)
    assert yak["recall_interval"] is None
    low, high = dog["recall_interval"]
    assert (low, high) == (pytest.approx(0.0945, abs=1e-4), pytest.approx(0.9055, abs=1e-4))


def test_ece_of_two_bins() -> None:
    """|2/2 - 0.8| and |1/2 - 0.6|, each over half of the images."""
    confidence = np.array([0.75, 0.85, 0.55, 0.65])
    bins = figures.reliability(confidence, np.array([True, True, True, False]), bins=5)
    assert [row["images"] for row in bins] == [0, 0, 1, 2, 1]
    # 0.55; 0.65 and 0.75; 0.85
    assert bins[3]["confidence"] == pytest.approx(0.7)
    assert bins[3]["accuracy"] == 0.5
    assert bins[0]["confidence"] is bins[0]["accuracy"] is None
    expected = (1 * (1 - 0.55) + 2 * abs(0.5 - 0.7) + 1 * (1 - 0.85)) / 4
    assert figures.ece(bins) == pytest.approx(expected)


def test_bins_are_closed_on_the_right() -> None:
    bins = figures.reliability(np.array([0.2, 0.200001, 1.0]), np.ones(3, dtype=bool), bins=5)
    assert [row["images"] for row in bins] == [1, 1, 0, 0, 1]


def test_fifteen_bins_unless_told_otherwise() -> None:
    bins = figures.reliability(np.array([0.5]), np.array([True]))
    assert len(bins) == 15
    assert figures.ece(bins) == pytest.approx(0.5)


def test_risk_and_coverage() -> None:
    """Errors at places 2 and 4 of the order of confidence: 0/1, 1/2, 1/3, 2/4."""
    risks = figures.risk_coverage(
        np.array([0.6, 0.9, 0.7, 0.8]), np.array([False, True, True, False])
    )
    assert risks.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert figures.aurc(risks) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_images_of_the_same_confidence_share_their_errors() -> None:
    for right in ([True, False, True], [True, True, False]):
        risks = figures.risk_coverage(np.array([0.9, 0.8, 0.8]), np.array(right))
        assert risks.tolist() == pytest.approx([0, 0.25, 1 / 3])


def test_nll_and_softmax() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
    chances = figures.softmax(logits)
    assert chances[0].tolist() == pytest.approx([0.7, 0.2, 0.1])
    assert figures.nll(chances, np.array([1, 2])) == pytest.approx(
        -(math.log(0.2) + math.log(0.8)) / 2
    )
    halved = np.sqrt([0.7, 0.2, 0.1])
    assert figures.softmax(logits, 2.0)[0].tolist() == pytest.approx(halved / halved.sum())


def test_large_logits_stay_finite() -> None:
    assert figures.softmax(np.array([[1e4, 0.0]])).tolist() == [[1.0, 0.0]]
    assert figures.nll(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(708.4, abs=0.1)
