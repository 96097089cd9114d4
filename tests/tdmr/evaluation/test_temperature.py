"""Temperatures that are known, and what a few images may ask for."""

from __future__ import annotations

import numpy as np
import pytest

from tdmr.evaluation import figures, temperature
from tdmr.evaluation.figures import Floats, Ints


def drawn(images: int, seed: int = 0) -> tuple[Floats, Ints]:
    """Logits, and labels drawn from the probabilities that they mean."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(images, 4))
    chances = figures.softmax(logits).cumsum(axis=1)
    return logits, (rng.random((images, 1)) > chances).sum(axis=1)


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_a_known_temperature_is_found(factor: float) -> None:
    logits, labels = drawn(20_000)
    assert temperature.fit(factor * logits, labels) == pytest.approx(factor, rel=0.04)


def test_it_is_the_least_of_the_likelihood() -> None:
    logits, labels = drawn(500)
    found = temperature.fit(logits, labels)

    def loss(at: float) -> float:
        chances = figures.softmax(logits, at)
        return len(labels) * figures.nll(chances, labels) + np.log(at) ** 2 / 2

    assert all(loss(found) < loss(found * step) for step in (0.9, 0.99, 1.01, 1.1))


def test_a_few_right_answers_ask_for_no_certainty() -> None:
    """Without a prior the least likelihood would be at nothing, and the search end at its limit."""
    found = temperature.fit(5.0 * np.eye(3), np.arange(3))
    assert 0.5 < found < 1
    assert temperature.fit(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)) == 1.0


def test_halves_are_stratified_and_seeded() -> None:
    labels = np.repeat([0, 1, 2, 3], [10, 7, 5, 1])
    second = temperature.halve(labels, seed=3)
    assert np.bincount(labels[second], minlength=4).tolist() in (
        [5, 3, 3, 0],
        [5, 4, 2, 0],
        [5, 3, 2, 1],
    )
    assert second.sum() == 11
    assert (temperature.halve(labels, seed=3) == second).all()
    assert (temperature.halve(labels, seed=4) != second).any()


def test_each_half_is_judged_with_the_other_s() -> None:
    logits, labels = drawn(400)
    crossed = temperature.cross_fit(logits, labels, seed=0)
    first, second = ~crossed.second, crossed.second
    assert crossed.temperatures[0] == temperature.fit(logits[first], labels[first])
    other = crossed.of_the_other()
    assert other.shape == (400, 1)
    assert set(other[first].ravel()) == {crossed.temperatures[1]}
    assert set(other[second].ravel()) == {crossed.temperatures[0]}
