"""What is measured, and with which options. Nothing here was tuned.

The budgets are set by reasoning, before any of these datasets was looked at, and every method of a
cell gets the same. The foundations' pre-training has seen some of the test images (ImageNet shares
photographs with CUB-200 and Pets): accuracies compare methods within a cell, not foundations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from tdmr import catalog
from tdmr.config import DistillOptions
from tdmr.errors import OptionsError
from tdmr.suite import sources
from tdmr.suite.prepare import Shots
from tdmr.suite.sources import Source

FOUNDATIONS = (
    "vit_small_patch14_dinov2.lvd142m",
    "convnext_base.fb_in22k_ft_in1k",
    "swin_base_patch4_window7_224.ms_in22k",
)
STUDENTS = ("mobilenetv3_small_100", "resnet18", "vit_tiny_patch16_224")
SHOTS: tuple[Shots, ...] = (1, 2, 5, 10, "all")
SEEDS = 5


@dataclass(frozen=True)
class Budget:
    """Student steps and batch, views per image (K), and the steps of stage 1."""

    steps: int
    batch_size: int
    views: int
    reprogram_steps: int


@dataclass(frozen=True)
class Recipe:
    """A dataset's input side in pixels, probability of mirrored views, and its two budgets."""

    side: int
    flip: float
    few: Budget
    full: Budget


FEW = Budget(2_000, 32, 20, 300)
# CIFAR's 32 pixels are enlarged. Mirrored, each of these things is still what it was.
RECIPES: dict[str, Recipe] = {
    #                     side flip  few-shot        all: steps batch  K  stage 1
    "cifar-100": Recipe(224, 0.5, FEW, Budget(20_000, 128, 4, 2_000)),
    "flowers-102": Recipe(224, 0.5, FEW, Budget(3_000, 64, 20, 500)),
    "pets": Recipe(224, 0.5, FEW, Budget(6_000, 64, 20, 1_000)),
    "cub-200": Recipe(224, 0.5, FEW, Budget(10_000, 64, 20, 1_000)),
    "food-101": Recipe(224, 0.5, FEW, Budget(30_000, 128, 4, 2_000)),
}


class Cell(BaseModel):
    """One measurement: TDMR and its baselines on one draw of a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    foundation: str
    student: str
    shots: Shots
    seed: int

    def __str__(self) -> str:
        return (
            f"{self.dataset}, {self.shots} shots, seed {self.seed}, "
            f"{self.foundation} to {self.student}"
        )


def cells(
    datasets: Sequence[str],
    foundations: Sequence[str],
    students: Sequence[str],
    shots: Sequence[Shots],
    seeds: int,
) -> list[Cell]:
    """Every combination, in the order in which students share a foundation's features.

    A number of shots that takes all training images is left out where `all` is asked for too.
    Raises OptionsError or UnknownModelError for a name that isn't known.
    """
    if seeds < 1:
        raise OptionsError("There must be at least one seed.", suggestion="Give --seeds 5.")
    for role, names in (("foundation", foundations), ("student", students)):
        for name in names:
            if not name.startswith(("local-dir:", "safetensors:")):
                catalog.require(name, role)  # type: ignore[arg-type] # the two roles there are
    return [
        Cell(dataset=dataset, foundation=foundation, student=student, shots=shot, seed=seed)
        for dataset in dict.fromkeys(datasets)
        for shot in dict.fromkeys(shots)
        if not ("all" in shots and shot != "all" and _takes_all(sources.require(dataset), shot))
        for seed in range(seeds)
        for foundation in dict.fromkeys(foundations)
        for student in dict.fromkeys(students)
    ]


def _takes_all(source: Source, shots: int) -> bool:
    return shots * source.classes == source.train


def options_for(cell: Cell, overrides: dict[str, Any]) -> DistillOptions:
    """The options of a cell: its dataset's recipe, then `overrides`, then the seed.

    Raises pydantic.ValidationError for overrides that aren't options.
    """
    recipe = RECIPES[cell.dataset]
    budget = recipe.full if cell.shots == "all" else recipe.few
    options = {
        "image_size": recipe.side,
        "foundation_size": recipe.side,
        "views": {"count": budget.views, "flip": recipe.flip},
        "reprogram": {"steps": budget.reprogram_steps},
        "training": {"steps": budget.steps, "batch_size": budget.batch_size},
    }
    return DistillOptions.model_validate({**_merged(options, overrides), "seed": cell.seed})


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = _merged(below[key], value) if both else value
    return merged


def parse_names(given: Iterable[str] | None, default: Sequence[str]) -> list[str]:
    """Option values, repeated or separated by commas; nothing given: `default`."""
    return [x.strip() for part in given for x in part.split(",")] if given else list(default)


def parse_shots(given: Iterable[str] | None) -> list[Shots]:
    """Numbers of shots, or `all`. Raises OptionsError for anything else."""
    found: list[Shots] = []
    for text in parse_names(given, [str(shot) for shot in SHOTS]):
        if text != "all" and not (text.isdecimal() and int(text)):
            raise OptionsError(f"{text!r} shots can't be drawn.", suggestion="Give 1, 5 or all.")
        found.append("all" if text == "all" else int(text))
    return found
