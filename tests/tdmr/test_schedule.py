"""The schedule at chosen moments, on every axis and in every direction."""

from __future__ import annotations

import pytest

from tdmr.config import DistilOptions
from tdmr.schedule import Schedule


def schedule(**options: object) -> Schedule:
    return Schedule(DistilOptions.model_validate(options), taps=4)


@pytest.mark.parametrize("t", [0.0, 0.1, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("depth", ["forward", "flat", "reversed"])
def test_tap_weights_always_sum_to_one(t: float, depth: str) -> None:
    assert sum(schedule(depth=depth).at(t).taps) == pytest.approx(1)


def test_depth_opens_shallow_first_or_deep_first() -> None:
    assert schedule(depth="forward").at(0).taps == (1, 0, 0, 0)
    assert schedule(depth="reversed").at(0).taps == (0, 0, 0, 1)
    assert schedule(depth="flat").at(0).taps == (0.25,) * 4
    assert schedule(depth="forward").at(0.5).taps == pytest.approx((0.25,) * 4)
    # Half of the second tap's span: it is half open beside the first.
    assert schedule(depth="forward").at(0.5 / 6).taps == pytest.approx((2 / 3, 1 / 3, 0, 0))


def test_width_opens_by_prefix() -> None:
    widths = [schedule(width="forward").at(t).width for t in (0, 0.25, 0.5, 1)]
    assert widths == [0.25, 0.625, 1, 1]
    back = [schedule(width="reversed").at(t).width for t in (0, 0.5, 0.75, 1)]
    assert back == [1, 1, 0.625, 0.25]
    assert schedule(width="flat").at(0).width == 1


def test_proxies_fade_to_nothing_and_labels_stay() -> None:
    forward = schedule(objective="forward", proxy=2.0, relation=1.0, ce=1.0, kd=0.5)
    first, last = forward.at(0), forward.at(1)
    assert (first.proxy, first.relation, first.ce, first.kd) == (2.0, 1.0, 1.0, 0.5)
    assert (last.proxy, last.relation) == pytest.approx((0, 0))
    assert (last.ce, last.kd) == (1.0, 0.5)
    assert forward.at(0.75).proxy == pytest.approx(1.0)
    assert schedule(objective="reversed").at(0).proxy == pytest.approx(0)
    assert schedule(objective="flat", proxy=2.0).at(1).proxy == 2.0


def test_labels_rise_behind_a_reused_head_while_proxies_fade() -> None:
    forward = schedule(head="reused", ce=1.0, kd=0.5, read=3.0)
    found = [forward.at(t) for t in (0, 0.5, 0.75, 1)]
    assert [(w.ce, w.kd) for w in found] == [(0, 0), (0, 0), (0.5, 0.25), (1, 0.5)]
    assert [w.read for w in found] == pytest.approx([3, 3, 1.5, 0])
    back = schedule(head="reused", objective="reversed", ce=1.0)
    assert [back.at(t).ce for t in (0, 0.25, 0.5, 1)] == [1, 0.5, 0, 0]
    assert schedule(head="reused", objective="flat", ce=1.0).at(0).ce == 1
    assert schedule(head="own", read=3.0).at(0).read == 0


def test_a_series_for_a_plot_is_the_schedule_at_its_moments() -> None:
    plan = schedule(depth="forward", proxy=2.0)
    series = plan.series(5)
    assert series["t"] == [0, 0.25, 0.5, 0.75, 1]
    assert series["proxy"] == [plan.at(t).proxy for t in series["t"]]
    assert [series[f"tap {n}"][1] for n in (1, 2, 3, 4)] == list(plan.at(0.25).taps)
    assert series.keys() == {
        "t", "ce", "kd", "proxy", "relation", "read", "width", "tap 1", "tap 2", "tap 3", "tap 4",
    }  # fmt: skip
