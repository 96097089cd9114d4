"""What the rows of `--choose` say of recipes of TDMR, and of the settings of five methods.

A method leaves the common setting for the one with the best mean only where its lead is more than
noise: the 95 % interval of the differences, paired by cell and seed, lies above zero.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import commit, machine
from benchmarks.transfer import grid
from benchmarks.transfer.report import difference, points
from tdmr.suite.statistics import paired

Row = dict[str, Any]
Cell = tuple[int, str]  # shots, student


def write(rows: list[Row], folder: Path, name: str, arguments: list[str], console: Console) -> None:
    """Print the table; write the JSON."""
    cells: dict[Cell, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        cells[row["shots"], row["student"]][row["method"]][row["seed"]] = row["accuracy"]
    if not cells:
        console.print("No result yet.")
        return
    compared = [m for m in (*grid.RECIPES, *grid.RIVALS) if m != grid.AS_IT_IS]
    summary = {
        "command": "python -m benchmarks.transfer " + " ".join(arguments),
        "commit": commit(),
        "commits_of_rows": sorted({row["commit"] for row in rows}),
        "machine": machine(),
        "cells": [_cell(key, methods) for key, methods in sorted(cells.items())],
        "minus_as_it_is": {m: _by_shots(cells, m) for m in compared},
        "settings": {method: _settings(cells, method) for method in grid.FEW},
    }
    _print(summary, console)
    (folder / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")
    console.print(f"Stored in {folder / name}.json")


def _cell(key: Cell, methods: dict[str, dict[int, float]]) -> Row:
    means = {method: round(mean(seeds.values()), 5) for method, seeds in methods.items()}
    seeds = min(len(found) for found in methods.values())
    return {"shots": key[0], "student": key[1], "seeds": seeds, "means": means}


def _by_shots(cells: dict[Cell, dict[str, dict[int, float]]], method: str) -> Row:
    """A method minus the default: paired by seed, averaged over students (and over "all" shots)."""
    every = sorted({shots for shots, _ in cells})
    asked = {**{str(shots): (shots,) for shots in every}, "all": tuple(every)}
    found = {
        name: difference(
            [methods for key, methods in cells.items() if key[0] in shots], method, grid.AS_IT_IS
        )
        for name, shots in asked.items()
    }
    return {name: row for name, row in found.items() if row}


def _settings(cells: dict[Cell, dict[str, dict[int, float]]], method: str) -> Row:
    """Each setting of a method minus the common one, and the setting that it is given."""
    found = {}
    for setting in grid.SETTINGS:
        if setting == grid.COMMON:
            continue
        pairs = [
            (theirs[seed], common)
            for _, methods in sorted(cells.items())
            for theirs in [methods.get(grid.named(method, setting), {})]
            for seed, common in methods.get(grid.named(method, grid.COMMON), {}).items()
            if seed in theirs
        ]
        if pairs:
            found[setting] = asdict(paired(*zip(*pairs, strict=True)))
    best = max(found, key=lambda setting: found[setting]["mean"], default=grid.COMMON)
    leads = best in found and (found[best]["low"] or 0) > 0
    return {"minus_common": found, "picked": best if leads else grid.COMMON}


def _print(summary: Row, console: Console) -> None:
    methods = [*grid.RECIPES, *grid.RIVALS]
    table = Table("shots", "student", "seeds", *methods)
    for cell in summary["cells"]:
        values = [f"{cell['means'][m]:.4f}" if m in cell["means"] else "" for m in methods]
        table.add_row(str(cell["shots"]), cell["student"], str(cell["seeds"]), *values)
    console.print(table)
    for method, by_shots in summary["minus_as_it_is"].items():
        for shots, row in by_shots.items():
            console.print(f"{method} - {grid.AS_IT_IS}, {shots} shots: {points(row)}")
    for method, settings in summary["settings"].items():
        for setting, row in settings["minus_common"].items():
            console.print(f"{method}, {setting} - {grid.COMMON}: {points(row)}")
        console.print(f"{method} is given: {settings['picked']}")
