"""Progression of stage 2: which terms weigh how much, at which moment of the training.

Three axes, each of which can run forward, flat or reversed:
    depth      which taps are open; forward: shallow first
    width      how many of the proxy's leading dimensions count; forward: few first
    objective  proxies against labels; forward: proxies first, which fade while the labels and
               the head's probabilities rise (with a head of its own a student has these all along)
A term that has decayed to nothing can't hold the student back where it outgrows its foundation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tdmr.config import Direction, DistilOptions

OPENING = 0.5  # share of the training in which the taps open one after the other
DECAY_FROM = 0.5  # the moment from which the auxiliary terms fade, and labels rise
MIN_WIDTH = 0.25  # share of the proxy that counts from the start
PLAIN = ("ce", "kd", "proxy", "relation", "read", "width")


@dataclass(frozen=True)
class Weights:
    """Weights at one moment: of taps (summing to 1) and terms; and the open share of the width."""

    taps: tuple[float, ...]
    ce: float
    kd: float
    proxy: float
    relation: float
    read: float
    width: float


class Schedule:
    """The weights of stage 2 as a function of progress t in [0, 1]."""

    def __init__(self, options: DistilOptions, taps: int) -> None:
        self.options = options
        self.taps = taps

    def at(self, t: float) -> Weights:
        """The weights at progress `t`."""
        o = self.options
        auxiliary, labels = self._auxiliary(t), self._labels(t)
        return Weights(
            taps=self._taps(t),
            ce=o.ce * labels,
            kd=o.kd * labels,
            proxy=o.proxy * auxiliary,
            relation=o.relation * auxiliary,
            read=o.read * auxiliary if o.head == "reused" else 0.0,
            width=self._width(t),
        )

    def series(self, points: int = 101) -> dict[str, list[float]]:
        """Every weight at `points` moments from 0 to 1, by name: what a plot of the schedule shows.

        `t`, `ce`, `kd`, `proxy`, `relation`, `read`, `width`, and `tap 1` … for the taps.
        """
        moments = [place / (points - 1) for place in range(points)]
        found = [self.at(t) for t in moments]
        plain = {name: [getattr(w, name) for w in found] for name in PLAIN}
        taps = {f"tap {n + 1}": [w.taps[n] for w in found] for n in range(self.taps)}
        return {"t": moments, **plain, **taps}

    def _taps(self, t: float) -> tuple[float, ...]:
        if self.options.depth == "flat" or self.taps == 1:
            return (1 / self.taps,) * self.taps
        # A tap opens over the span before the next one does; the first is open at once.
        span = OPENING / (self.taps - 1)
        opened = [min(1.0, max(0.0, t / span - tap + 1)) for tap in range(self.taps)]
        total = sum(opened)
        ordered = opened if self.options.depth == "forward" else opened[::-1]
        return tuple(w / total for w in ordered)

    def _width(self, t: float) -> float:
        moment = 1 - t if self.options.width == "reversed" else t
        opened = MIN_WIDTH + (1 - MIN_WIDTH) * min(1.0, moment / OPENING)
        return _directed(self.options.width, opened)

    def _labels(self, t: float) -> float:
        if self.options.head == "own":  # which learns from nothing else
            return 1.0
        moment = t if self.options.objective == "forward" else 1 - t
        risen = max(0.0, (moment - DECAY_FROM) / (1 - DECAY_FROM))
        return _directed(self.options.objective, risen)

    def _auxiliary(self, t: float) -> float:
        faded = 1.0
        moment = t if self.options.objective == "forward" else 1 - t
        if moment > DECAY_FROM:
            faded = 0.5 * (1 + math.cos(math.pi * (moment - DECAY_FROM) / (1 - DECAY_FROM)))
        return _directed(self.options.objective, faded)


def _directed(direction: Direction, value: float) -> float:
    return 1.0 if direction == "flat" else value
