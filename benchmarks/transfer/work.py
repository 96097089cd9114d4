"""One unit of work, done in a process of its own: one draw, some methods."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.transfer import choose, grid
from benchmarks.transfer.grid import Draw, Setting
from benchmarks.transfer.lab import RESULT, Lab, write
from benchmarks.transfer.ledger import Ledger
from tdmr import run

Settings = dict[tuple[str, str], dict[str, Any]]


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


def measure(unit: Unit, settings: Settings, cache: Path) -> list[dict[str, Any]]:
    """The unit's rows; `cache` keeps the foundation's features for the other students."""
    draw = unit.draw
    run.set_up(torch.device("cpu"), grid.spec(draw, Setting()))
    torch.set_num_threads(1)
    if unit.kind == "choice":
        chosen = choose.choose(draw, unit.methods, cache)
        return [{**unit.row(method), **found} for method, found in chosen.items()]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(draw, root / "data", RESULT)
        lab = Lab(draw, root / "data", cache)
        return [{**unit.row(m), **_one(unit, lab, m, settings)} for m in unit.methods]


def _one(unit: Unit, lab: Lab, method: str, settings: Settings) -> dict[str, Any]:
    draw = unit.draw
    # Controls and variants are run as what they are variants of.
    same = {grid.SHUFFLED: "scratch", grid.ONLINE: "kd"}.get(method, method)
    if unit.kind == "ablation":
        same = "tdmr"
    setting = Setting(**settings[draw.student, same])
    if unit.kind == "ablation":
        found = lab.ablate(method, grid.ABLATIONS[method], setting)
    else:
        found = lab.train(method, setting)
    extra = {"probe": lab.probe(setting)} if method == "tdmr" else {}
    return {**found, **extra, "setting": asdict(setting)}
