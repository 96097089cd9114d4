"""What `make bench-transfer` runs: targets, models, shots, methods, and the budgets to choose from.

One draw is (target, foundation, student, shots, seed). Every method sees the same draws.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tdmr.config import (
    DistillOptions,
    JobSpec,
    TrainingOptions,
    ViewOptions,
)

FAST = bool(os.environ.get("FAST"))

# One of each family, pre-trained by scripts/pretrain_letters.py.
FOUNDATIONS = {
    "transformer": "letters_vit",
    "cnn": "letters_cnn",
    "hybrid": "letters_hybrid",
}
STUDENTS = {"cnn": "test_resnet", "transformer": "test_vit", "hybrid": "test_coatnet"}
METHODS = ("scratch", "kd", "fitnet", "simkd", "aft", "rd", "tdmr")
ONLINE = "kd_online"
SHUFFLED = "shuffled"

SIDE = 32
CLASSES = 10  # of both targets
FAST_VIEWS = 20
BASE_STEPS = 40 if FAST else 150
CHOICE_SEED = 900
CHOICE_SHOTS = (2,) if FAST else (2, 10)  # one draw each, and the mean of both decides


@dataclass(frozen=True)
class Draw:
    """Which images, models and seed."""

    target: str
    foundation: str
    student: str
    shots: int
    seed: int


@dataclass(frozen=True)
class Setting:
    """What every method may choose for itself: the budget, the augmentation, and the rate."""

    budget: int = 1  # in units of BASE_STEPS
    mix: float = 0.0
    rate: float = 2e-3


BUDGETS = (1, 4)
MIXES = (0.0, 0.5)
RATES = (2e-3, 5e-3)


@dataclass(frozen=True)
class Block:
    """A part of the grid: every combination of its lists, for the seeds from `first` to `last`."""

    target: str
    foundations: tuple[str, ...]
    students: tuple[str, ...]
    shots: tuple[int, ...]
    first: int
    last: int
    methods: tuple[str, ...]

    def draws(self) -> Iterator[Draw]:
        """Seeds outermost, so that a run cut short has whole seeds."""
        for seed in range(self.first, self.last):
            for shots in self.shots:
                for foundation in self.foundations:
                    for student in self.students:
                        yield Draw(self.target, foundation, student, shots, seed)


FEW = ("scratch", "kd", "fitnet", "aft", "tdmr")
OTHER = tuple(method for method in METHODS if method not in FEW)


def blocks() -> list[Block]:
    """The main comparison first, then everything with few seeds, then the other seeds."""
    students = tuple(STUDENTS.values())
    transformer, *others = FOUNDATIONS.values()
    if FAST:
        return [
            Block("digits", (transformer,), students[:1], (2, 5), 0, 2, (*METHODS, SHUFFLED)),
            Block("patterns", (transformer,), students[:1], (5,), 0, 2, FEW),
        ]
    every = tuple(FOUNDATIONS.values())
    few_shots, main = (2, 5, 10), (*FEW, SHUFFLED)
    return [
        Block("digits", (transformer,), students, few_shots, 0, 4, main),
        Block("digits", tuple(others), students, few_shots, 0, 3, FEW),
        Block("patterns", every, students, (5,), 0, 3, FEW),
        Block("digits", (transformer,), students, few_shots, 0, 4, OTHER),
        Block("digits", (transformer,), students, (5,), 0, 2, (ONLINE,)),
        Block("digits", (transformer,), students, (20,), 0, 4, (*METHODS, SHUFFLED)),
        Block("patterns", every, students, (20,), 0, 3, FEW),
        Block("digits", (transformer,), students, (*few_shots, 20), 4, 10, (*METHODS, SHUFFLED)),
        Block("digits", tuple(others), students, few_shots, 3, 10, FEW),
        Block("patterns", every, students, (5, 20), 3, 10, FEW),
    ]


ABLATION_SHOTS = 5
ABLATION_SEEDS = 2 if FAST else 5
ABLATIONS: dict[str, dict[str, dict[str, object]]] = {
    "depth flat": {"distil": {"depth": "flat"}},
    "depth reversed": {"distil": {"depth": "reversed"}},
    "width forward": {"distil": {"width": "forward"}},
    "width reversed": {"distil": {"width": "reversed"}},
    "objective flat": {"distil": {"objective": "flat"}},
    "objective reversed": {"distil": {"objective": "reversed"}},
    "without the relational term": {"distil": {"relation": 0.0}},
    "without preservation": {"reprogram": {"preserve": 0.0}},
    "last tap only": {"reprogram": {"taps": 1}},
    "raw features, no proxy": {},
    "K = 1": {"views": {"count": 1}},
    "K = 4": {"views": {"count": 4}},
    "K = 16": {"views": {"count": 16}},
    "K = 64": {"views": {"count": 64}},
}
RAW = "raw features, no proxy"


def views(draw: Draw) -> ViewOptions:
    """The draw's views without mixtures: the product's own K for the longest training of all.

    The same for every setting, so that a shorter training isn't judged by fewer views.
    """
    options = ViewOptions(count=FAST_VIEWS if FAST else None, flip=flip(draw.target))
    longest = BASE_STEPS * max(BUDGETS) * TrainingOptions().batch_size
    return options.counted(CLASSES * max(draw.shots, 1), longest)


def spec(draw: Draw, setting: Setting) -> JobSpec:
    """The job of one draw, for any method."""
    return JobSpec(
        foundation=draw.foundation,
        student=draw.student,
        options=DistillOptions(
            seed=draw.seed,
            image_size=SIDE,
            views=views(draw).model_copy(update={"mix": setting.mix}),
            training=TrainingOptions(steps=BASE_STEPS * setting.budget, learning_rate=setting.rate),
        ),
    )


def flip(target: str) -> float:
    """A mirrored digit is another sign; a mirrored pattern is the same pattern."""
    return 0.0 if target == "digits" else 0.5


def trials(best: Setting) -> list[list[Setting]]:
    """The search of a setting from `best`: budget with augmentation first, then the rate."""
    together = [replace(best, budget=b, mix=m) for b in BUDGETS for m in MIXES]
    return [together, [replace(best, rate=rate) for rate in RATES]]
