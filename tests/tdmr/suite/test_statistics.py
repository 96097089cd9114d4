"""The library's own Student interval, against SciPy's."""

from __future__ import annotations

import math

import pytest
from scipy.stats import t as student_t
from scipy.stats import ttest_rel

from tdmr.suite.statistics import paired, t_quantile


@pytest.mark.parametrize("probability", [0.005, 0.3, 0.5, 0.9, 0.975, 0.9995])
def test_quantiles_are_those_of_scipy(probability: float) -> None:
    for freedom in (*range(1, 32), 50, 101, 1000):
        expected = float(student_t.ppf(probability, freedom))
        assert t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("probability", "freedom"), [(0.0, 3), (1.0, 3), (0.975, 0)])
def test_nonsense_is_refused(probability: float, freedom: int) -> None:
    with pytest.raises(ValueError, match="needs a probability"):
        t_quantile(probability, freedom)


def test_a_paired_interval_is_that_of_the_paired_t_test() -> None:
    ours, theirs = [0.71, 0.74, 0.70, 0.78, 0.73], [0.70, 0.70, 0.71, 0.72, 0.70]
    found = paired(ours, theirs)
    expected = ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found.mean == pytest.approx(0.026)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.wins, found.n) == (4, 5)
    assert str(found) == f"+0.0260 ({expected.low:+.4f} to {expected.high:+.4f}), 4/5"


def test_one_pair_has_no_interval_and_a_tie_is_no_win() -> None:
    found = paired([0.5], [0.5])
    assert (found.mean, found.low, found.high, found.wins, found.n) == (0.0, None, None, 0, 1)
    assert str(found) == "+0.0000, 0/1"


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired([0.5, 0.6], [0.5])
    assert math.isclose(t_quantile(0.025, 4), -t_quantile(0.975, 4))
