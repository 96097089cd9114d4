"""What a benchmark will cost, before it is run: estimated on stated assumptions, not measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from tdmr import catalog
from tdmr.config import DistillOptions
from tdmr.suite import sources
from tdmr.suite.plan import Cell, options_for
from tdmr.suite.prepare import Shots
from tdmr.suite.sources import Source

# Assumptions about one modern data-centre GPU; none of them is a measurement.
FORWARD_RATE = 10e12  # multiply-adds per second of a frozen model
TRAIN_RATE = 5e12  # multiply-adds per second of a student in training, 3 forwards to a step
STEP_FLOOR = 0.02  # seconds that a step takes however small the student is
DECODE_RATE = 300.0  # images per second, each once
FEATURE_BYTES = 6144  # stored per view: at most 3072 values of 2 bytes
TRAININGS = 3  # TDMR, and the baselines scratch and kd


@dataclass(frozen=True)
class Cost:
    """Images shown to foundations, steps of students, hours on one GPU (estimated), bytes kept."""

    forwards: int = 0
    steps: int = 0
    hours: float = 0.0
    bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.forwards + other.forwards,
            self.steps + other.steps,
            self.hours + other.hours,
            self.bytes + other.bytes,
        )


def costs(planned: Iterable[Cell], overrides: dict[str, Any]) -> Iterator[tuple[Cell, Cost]]:
    """The expected cost of each cell, where the cells before it left their features and pixels."""
    shown: set[tuple[object, ...]] = set()
    decoded: set[tuple[object, ...]] = set()
    for cell in planned:
        draw = (cell.dataset, cell.shots, cell.seed if cell.shots != "all" else None)
        features = (cell.dataset, cell.shots, cell.seed, cell.foundation)
        source, options = sources.require(cell.dataset), options_for(cell, overrides)
        train = _training_images(source, cell.shots)
        views = options.views.counted(train, options.training.steps * options.training.batch_size)
        fresh = train * (views.count or 0) if features not in shown else 0
        images = (train if draw not in decoded else 0) + (
            source.test if (cell.dataset,) not in decoded else 0
        )
        shown.add(features)
        decoded |= {draw, (cell.dataset,)}
        yield cell, _cost(cell, options, fresh, source.test, images)


def _training_images(source: Source, shots: Shots) -> int:
    return source.train if shots == "all" else min(source.train, shots * source.classes)


def _cost(cell: Cell, options: DistillOptions, fresh: int, tested: int, images: int) -> Cost:
    forwards = fresh + tested  # the probe baseline looks at the test images
    steps = TRAININGS * options.training.steps
    size = options.foundation_size
    foundation = _multiply_adds(cell.foundation, None if size == "match" else size)
    student = _multiply_adds(cell.student, options.image_size)
    step = 3 * student * options.training.batch_size / TRAIN_RATE
    seconds = (
        forwards * foundation / FORWARD_RATE
        + TRAININGS * tested * student / FORWARD_RATE
        + steps * max(step, STEP_FLOOR)
        + images / DECODE_RATE
    )
    side = options.image_size or 224
    kept = fresh * FEATURE_BYTES + images * 3 * side * side
    return Cost(forwards, steps, seconds / 3600, kept)


def _multiply_adds(name: str, side: int | None) -> float:
    """Of one image at `side` pixels; 0 for a model that the catalog doesn't know."""
    known = _sizes().get(name.partition(".")[0])
    if known is None:
        return 0.0
    gmacs, own_side = known
    return gmacs * 1e9 * ((side or own_side) / own_side) ** 2


@cache
def _sizes() -> dict[str, tuple[float, int]]:
    """Architecture to GMACs and the side in pixels that they are for."""
    rows = json.loads((catalog.ASSETS / "catalog.json").read_text(encoding="utf-8"))
    return {row["name"]: (row["gmacs"], row["input_size"]) for row in rows}
