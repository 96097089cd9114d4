"""The results file: one JSON document, replaced as a whole after every cell."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tdmr.config import DistillOptions
from tdmr.errors import OptionsError
from tdmr.suite.plan import Cell, options_for
from tdmr.suite.prepare import Shots
from tdmr.suite.statistics import Paired, paired

METHODS = ("probe", "scratch", "kd", "tdmr")
AGAINST = ("scratch", "kd")


class Strict(BaseModel):
    """Base of what the file holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Run(Strict):
    """A finished cell: per method its accuracy on all test images (0 to 1), and its seconds."""

    cell: Cell
    options: DistillOptions
    accuracy: dict[str, float]
    seconds: dict[str, float]
    forwards: int
    train_images: int
    test_images: int
    dataset_version: str
    tdmr: str
    machine: str


class Failed(Strict):
    """A cell that ended badly; a restart tries it again."""

    cell: Cell
    detail: str


class Group(Strict):
    """Means over the seeds of one dataset, number of shots and pair of models."""

    dataset: str
    shots: Shots
    foundation: str
    student: str
    seeds: list[int]
    mean: dict[str, float]
    tdmr_minus: dict[str, Paired]


class Results(Strict):
    """Everything measured so far, in the order of measuring."""

    suite: str = "standard"
    runs: list[Run] = []
    failed: list[Failed] = []
    summary: list[Group] = []

    @classmethod
    def read(cls, path: Path) -> Results:
        """What `path` holds; nothing, where there is no such file.

        Raises OptionsError for a file that isn't a results file.
        """
        if not path.exists():
            return cls()
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise OptionsError(
                f"{path} isn't a results file of this suite: {error.errors()[0]['msg']}.",
                suggestion="Choose another --out.",
            ) from error

    def write(self, path: Path) -> None:
        """Replace `path`: a reader sees the file before or after, never half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.{os.getpid()}")
        staged.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        staged.replace(path)

    def remaining(self, planned: Iterable[Cell], overrides: dict[str, Any]) -> list[Cell]:
        """The planned cells that aren't finished.

        Raises OptionsError where the file holds runs with other options than would be used now:
        their means would mix what can't be compared.
        """
        for run in self.runs:
            if run.options != options_for(run.cell, overrides):
                raise OptionsError(
                    f"The results file holds a run with other options ({run.cell}).",
                    suggestion="Choose another --out, or give the same --options as before.",
                )
        done = {run.cell for run in self.runs}
        return [cell for cell in planned if cell not in done]

    def with_run(self, run: Run) -> Results:
        """These results, and one more run."""
        runs = [*self.runs, run]
        failed = [each for each in self.failed if each.cell != run.cell]
        return self.model_copy(update={"runs": runs, "failed": failed, "summary": groups(runs)})

    def with_failure(self, cell: Cell, detail: str) -> Results:
        """These results, and one more cell that ended badly."""
        failed = [each for each in self.failed if each.cell != cell]
        return self.model_copy(update={"failed": [*failed, Failed(cell=cell, detail=detail)]})


def groups(runs: Iterable[Run]) -> list[Group]:
    """Means over seeds, and TDMR minus each of `AGAINST`, paired by seed."""
    together: dict[tuple[str, Shots, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        cell = run.cell
        together[cell.dataset, cell.shots, cell.foundation, cell.student].append(run)
    return [_group(members) for members in together.values()]


def _group(members: list[Run]) -> Group:
    members = sorted(members, key=lambda run: run.cell.seed)
    columns = {name: [run.accuracy[name] for run in members] for name in METHODS}
    cell = members[0].cell
    return Group(
        dataset=cell.dataset,
        shots=cell.shots,
        foundation=cell.foundation,
        student=cell.student,
        seeds=[run.cell.seed for run in members],
        mean={name: mean(values) for name, values in columns.items()},
        tdmr_minus={name: paired(columns["tdmr"], columns[name]) for name in AGAINST},
    )
