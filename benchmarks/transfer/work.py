"""One unit of work, done in a process of its own: one draw, some methods."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.transfer import folds, grid
from benchmarks.transfer.grid import Draw
from benchmarks.transfer.lab import DEVELOPED, RESULT, Lab, write
from benchmarks.transfer.ledger import Ledger
from tdmr import run


@dataclass(frozen=True)
class Unit:
    """What to measure on one draw."""

    kind: str
    draw: Draw
    methods: tuple[str, ...]

    def row(self, method: str) -> dict[str, Any]:
        """What identifies one row: the student alone has no foundation, so that one serves all."""
        row = {"kind": self.kind, **asdict(self.draw), "method": method}
        return {**row, "foundation": None} if method == "scratch" else row

    def without(self, ledger: Ledger) -> Unit | None:
        """The part that isn't measured yet, or None."""
        left = tuple(m for m in self.methods if not ledger.has(self.row(m)))
        return replace(self, methods=left) if left else None


def measure(unit: Unit, cache: Path) -> list[dict[str, Any]]:
    """The unit's rows; `cache` keeps the foundation's features for the other students."""
    draw = unit.draw
    run.set_up(torch.device("cpu"), grid.spec(draw))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(draw, root / "data", DEVELOPED if unit.kind == grid.CHOICE else RESULT)
        lab = Lab(draw, root / "data", cache)
        return [{**unit.row(m), **_one(unit, lab, m)} for m in unit.methods]


def _one(unit: Unit, lab: Lab, method: str) -> dict[str, Any]:
    if unit.kind == "ablation":
        return lab.ablate(method, grid.ABLATIONS[method])
    if unit.kind == grid.FOLDED:
        return folds.measure(lab, method)
    if unit.kind == grid.CHOICE:
        candidate = grid.candidates()[method]
        return lab.train(candidate.method, candidate.changes)
    extra = {"probe": lab.probe()} if method == "tdmr" else {}
    return {**lab.train(method), **extra}
