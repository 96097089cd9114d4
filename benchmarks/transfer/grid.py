"""What `make bench-transfer` runs: targets, models, shots, methods, and the budget of them all.

One draw is (target, foundation, student, shots, seed). Every method sees the same draws, and gets
the same steps, rate and augmentation. Those of FEW were asked on other images which of the SETTINGS
suits them; all picked the common one (choices.json). Some draws are run once more with a setting
that every method picks for itself, by folds of the training images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from tdmr.config import (
    DistillOptions,
    JobSpec,
    TrainingOptions,
    ViewOptions,
)

Changes = dict[str, dict[str, object]]  # of options, by group and name

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
REUSED = "tdmr_reused"  # TDMR with a reused head, which may become the default
TARGETS = ("digits", "patterns")

SIDE = 32
FAST_VIEWS = 20
STEPS = 40 if FAST else 2400  # distillation takes patience: at 600 no method was done learning
RATE = 2e-3
MIX = 0.5  # share of mixtures among the views; of 0 and 0.5 the better one for most methods


@dataclass(frozen=True)
class Draw:
    """Which images, models and seed."""

    target: str
    foundation: str
    student: str
    shots: int
    seed: int


@dataclass(frozen=True)
class Block:
    """A part of the grid: every combination of its lists, for the seeds from `first` to `last`.

    Of kind "result", "ablation" (its methods are then names in ABLATIONS), or FOLDED.
    """

    target: str
    foundations: tuple[str, ...]
    students: tuple[str, ...]
    shots: tuple[int, ...]
    first: int
    last: int
    methods: tuple[str, ...]
    kind: str = "result"

    def draws(self) -> Iterator[Draw]:
        """Seeds outermost, so that a run cut short has whole seeds."""
        for seed in range(self.first, self.last):
            for shots in self.shots:
                for foundation in self.foundations:
                    for student in self.students:
                        yield Draw(self.target, foundation, student, shots, seed)


# The cell, at 5 images, that lost to plain distillation with three seeds.
LOST = (FOUNDATIONS["cnn"], STUDENTS["hybrid"])
FOLDED = "folds"
FOLDED_SHOTS = 5
FOLDED_SEEDS = range(3)
RAW = "raw features, no proxy"
HEAD = "head alone"
HEAD_REUSED: Changes = {"distil": {"head": "reused"}}
ABLATION_SHOTS = 5
ABLATIONS: dict[str, Changes] = {
    "depth flat": {"distil": {"depth": "flat"}},
    "depth reversed": {"distil": {"depth": "reversed"}},
    "width forward": {"distil": {"width": "forward"}},
    "width reversed": {"distil": {"width": "reversed"}},
    "objective flat": {"distil": {"objective": "flat"}},
    "objective reversed": {"distil": {"objective": "reversed"}},
    "without the relational term": {"distil": {"relation": 0.0}},
    "trained, without preservation": {"reprogram": {"mode": "trained", "preserve": 0.0}},
    "last tap only": {"reprogram": {"taps": 1}},
    RAW: {},
    HEAD: {"distil": {"proxy": 0.0, "relation": 0.0}},
    "trained proxies": {"reprogram": {"mode": "trained"}},
    "K = 1": {"views": {"count": 1}},
    "K = 4": {"views": {"count": 4}},
    "K = 16": {"views": {"count": 16}},
    "K = 64": {"views": {"count": 64}},
}

FIRST = ("scratch", "kd", "tdmr")
SECOND = ("fitnet", "aft")
FEW = (*FIRST, *SECOND)
OTHER = tuple(method for method in METHODS if method not in FEW)


def blocks() -> list[Block]:
    """The main comparison with all its seeds, then the rest with three, then the other seeds."""
    students = tuple(STUDENTS.values())
    transformer, *others = FOUNDATIONS.values()
    if FAST:
        return [
            Block(
                "digits", (transformer,), students[:1], (2, 5), 0, 2, (*METHODS, SHUFFLED, REUSED)
            ),
            Block("patterns", (transformer,), students[:1], (5,), 0, 2, FEW),
            ablations("digits", 0, 2),
            Block("digits", (transformer,), students[:1], (5,), 0, 1, FIRST, FOLDED),
        ]
    every = tuple(FOUNDATIONS.values())
    few_shots = (2, 5, 10)
    return [
        Block("digits", (transformer,), students, few_shots, 0, 5, FIRST),
        Block("digits", (transformer,), students, few_shots, 0, 3, (*SECOND, SHUFFLED)),
        ablations("digits", 0, 3),
        Block("digits", (transformer,), students, few_shots, 5, 10, FIRST),
        Block("digits", (transformer,), students, few_shots, 3, 10, SECOND),
        Block("patterns", (transformer,), students, (5,), 0, 3, FEW),
        Block("digits", (transformer,), students, (20,), 0, 3, FEW),
        Block("digits", tuple(others), students, few_shots, 0, 3, FEW),
        ablations("patterns", 0, 3),
        ablations("patterns", 0, 3, STUDENTS["transformer"]),
        ablations("digits", 0, 3, STUDENTS["transformer"], (HEAD,)),
        *(ablations(target, 0, 3, STUDENTS["hybrid"], (HEAD,)) for target in TARGETS),
        Block("digits", (transformer,), students, few_shots, 0, 3, OTHER),
        Block("digits", (transformer,), students, (5,), 0, 3, (ONLINE,)),
        # What beat TDMR in a cell with three seeds gets ten: was it chance, was it the proxies?
        Block("digits", (LOST[0],), (LOST[1],), (5,), 3, 10, FEW),
        ablations("digits", 0, 10, LOST[1], (HEAD,), LOST[0]),
        Block("digits", (transformer,), students, few_shots, 3, 10, ("simkd",)),
        *reused(every, students, few_shots),
        *folded(),
        Block("patterns", every, students, (5,), 0, 3, FEW),
        Block("digits", (transformer,), students, (20,), 0, 3, (*METHODS, SHUFFLED)),
        Block("digits", (transformer,), students, (*few_shots, 20), 0, 10, (*METHODS, SHUFFLED)),
        Block("digits", tuple(others), students, few_shots, 3, 10, FEW),
        Block("patterns", every, students, (5, 20), 0, 10, FEW),
        *(ablations(target, 3, 10) for target in TARGETS),
    ]


def reused(
    every: tuple[str, ...], students: tuple[str, ...], few_shots: tuple[int, ...]
) -> list[Block]:
    """TDMR with a reused head wherever there are three seeds of the others; then ten."""
    transformer = every[:1]
    return [
        Block("digits", transformer, students, few_shots, 0, 3, (REUSED,)),
        Block("patterns", transformer, students, (5,), 0, 3, (REUSED,)),
        Block("digits", every[1:], students, few_shots, 0, 3, (REUSED,)),
        Block("digits", transformer, students, few_shots, 3, 10, (REUSED,)),
        Block("digits", transformer, students, (20,), 0, 3, (REUSED,)),
    ]


def ablations(
    target: str,
    first: int,
    last: int,
    student: str = STUDENTS["cnn"],
    names: tuple[str, ...] = tuple(ABLATIONS),
    foundation: str = FOUNDATIONS["transformer"],
) -> Block:
    """TDMR with one thing changed, for the seeds from `first` to `last`."""
    return Block(
        target, (foundation,), (student,), (ABLATION_SHOTS,), first, last, names, "ablation"
    )


def folded() -> list[Block]:
    """Settings picked by folds. A block a method, as one takes as long as a unit should."""
    foundation = (FOUNDATIONS["transformer"],)
    return [
        Block("digits", foundation, (student,), (FOLDED_SHOTS,), seed, seed + 1, (method,), FOLDED)
        for seed in FOLDED_SEEDS
        for student in STUDENTS.values()
        for method in FEW
    ]


def spec(draw: Draw) -> JobSpec:
    """The job of one draw, for any method."""
    return JobSpec(
        foundation=draw.foundation,
        student=draw.student,
        options=DistillOptions(
            seed=draw.seed,
            image_size=SIDE,
            views=ViewOptions(count=FAST_VIEWS if FAST else None, mix=MIX, flip=flip(draw.target)),
            training=TrainingOptions(steps=STEPS, learning_rate=RATE),
        ),
    )


def flip(target: str) -> float:
    """A mirrored digit is another sign; a mirrored pattern is the same pattern."""
    return 0.0 if target == "digits" else 0.5


# What is chosen among on the other half of the digits, with seeds of its own: recipes of TDMR, and
# for those of FEW the setting that it is trained in.
CHOICE = "choice"
CHOICE_SEEDS = range(900, 901 if FAST else 903)
SETTING_SEEDS = range(900, 901)
CHOICE_SHOTS = (5,) if FAST else (5, 2, 10)
AS_IT_IS, READING = "as it is", "head reused"
RECIPES: dict[str, Changes] = {
    AS_IT_IS: {},
    READING: HEAD_REUSED,
    "depth flat": {"distil": {"depth": "flat"}},
    "depth and objective flat": {"distil": {"depth": "flat", "objective": "flat"}},
}
RIVALS = ("kd", "fitnet")
COMMON = "common"
SETTINGS: dict[str, Changes] = {
    COMMON: {},
    "a quarter of the steps": {"training": {"steps": STEPS // 4}},
    "no mixtures": {"views": {"mix": 0.0}},
    "a quarter of the steps, no mixtures": {
        "training": {"steps": STEPS // 4},
        "views": {"mix": 0.0},
    },
    "half the rate": {"training": {"learning_rate": RATE / 2}},
    "twice the rate": {"training": {"learning_rate": RATE * 2}},
}


@dataclass(frozen=True)
class Candidate:
    """A method, and what is changed of the options that all have in common."""

    method: str
    changes: Changes


def named(method: str, setting: str) -> str:
    """The name of the candidate that trains `method` in `setting`."""
    if setting != COMMON:
        return f"{method}, {setting}"
    return AS_IT_IS if method == "tdmr" else method


def candidates() -> dict[str, Candidate]:
    """All that is chosen among, by name."""
    settings = {
        named(method, setting): Candidate(method, changes)
        for method in FEW
        for setting, changes in SETTINGS.items()
    }
    return {**settings, **{name: Candidate("tdmr", c) for name, c in RECIPES.items()}}
