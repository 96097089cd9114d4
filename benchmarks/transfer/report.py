"""What the rows say: means, paired intervals, shares; as JSON, table and picture."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import commit, machine
from benchmarks.transfer import folds, grid
from benchmarks.transfer.picture import draw_transfer
from tdmr.suite.statistics import paired

Row = dict[str, Any]
Cell = tuple[str, str, str, int]  # target, foundation, student, shots
Place = tuple[str, int, int]  # student, shots, seed
Accuracies = dict[Cell, dict[str, dict[int, float]]]  # by method, by seed

LEAST_SEEDS = 2 if grid.FAST else 3  # to judge a cell by: of two, the interval reaches anything
MOST_SHOTS = 10  # of averages over shots: with 20 only few seeds are run


def write(rows: list[Row], folder: Path, name: str, arguments: list[str], console: Console) -> None:
    """Print the table; write the JSON and the picture."""
    cells = accuracies(rows)
    if not cells:
        console.print("No result yet.")
        return
    summary = {
        "command": "python -m benchmarks.transfer " + " ".join(arguments),
        "fast": grid.FAST,
        "commit": commit(),
        "commits_of_rows": sorted({row["commit"] for row in rows}),
        "machine": machine(),
        "cells": [cell for key in sorted(cells) for cell in _cell(key, cells[key])],
        "tdmr_minus": {
            m: by_shots(cells, "tdmr", m) for m in (*grid.METHODS, grid.ONLINE) if m != "tdmr"
        },
        "tdmr_minus_by_foundation": {
            m: by_foundation(cells, "tdmr", m) for m in grid.METHODS if m != "tdmr"
        },
        "shuffled_minus_scratch": by_shots(cells, grid.SHUFFLED, "scratch"),
        "reused_minus": {m: by_shots(cells, grid.REUSED, m) for m in grid.METHODS},
        "reused_minus_by_foundation": {
            m: by_foundation(cells, grid.REUSED, m) for m in grid.METHODS
        },
        "reused_minus_tdmr_by_student": by_student(cells, grid.REUSED, "tdmr"),
        "reused_shares": shares(cells, grid.REUSED),
        "probe": probes(rows),
        **shares(cells),
        "ablations": ablations(rows),
        "picked_by_folds": picked_by_folds(rows),
        "options": grid.spec(grid.Draw("digits", "f", "s", 2, 0)).options.model_dump(mode="json"),
        "costs": costs(rows),
    }
    _print(summary, console)
    (folder / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")
    picture = Path(__file__).parents[2] / "docs" / f"{name}.svg"
    if not grid.FAST:
        draw_transfer(summary, picture)
    console.print(f"Stored in {folder / name}.json")


def accuracies(rows: Iterable[Row]) -> Accuracies:
    """Accuracy by cell, method and seed.

    The student alone is in the cells of all foundations, with the seeds that others have there:
    means of a cell are then over the same draws, as far as they were run.
    """
    found: Accuracies = defaultdict(lambda: defaultdict(dict))
    alone: dict[tuple[str, str, int], dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row["kind"] != "result":
            continue
        if row["method"] == "scratch":
            alone[row["target"], row["student"], row["shots"]][row["seed"]] = row["accuracy"]
            continue
        key = (row["target"], row["foundation"], row["student"], row["shots"])
        found[key][row["method"]][row["seed"]] = row["accuracy"]
    for (target, _, student, shots), methods in found.items():
        here = set[int]().union(*methods.values())
        seeds = {s: a for s, a in alone[target, student, shots].items() if s in here}
        if seeds:
            methods["scratch"] = seeds
    return found


def _cell(key: Cell, methods: dict[str, dict[int, float]]) -> list[Row]:
    target, foundation, student, shots = key
    return [
        {
            "target": target,
            "foundation": foundation,
            "student": student,
            "shots": shots,
            "method": method,
            "mean": round(mean(seeds.values()), 5),
            "seeds": len(seeds),
        }
        for method, seeds in methods.items()
    ]


def difference(cells: Iterable[dict[str, dict[int, float]]], ours: str, theirs: str) -> Row | None:
    """Paired by seed, after averaging over cells: only seeds that every cell has count."""
    cells = [c for c in cells if ours in c and theirs in c]
    if not cells:
        return None
    seeds = set.intersection(*(set(c[ours]) & set(c[theirs]) for c in cells))
    if not seeds:
        return None
    a, b = (
        [mean(c[method][seed] for c in cells) for seed in sorted(seeds)]
        for method in (ours, theirs)
    )
    return asdict(paired(a, b))


def by_shots(cells: Accuracies, ours: str, theirs: str) -> dict[str, Row]:
    """On digits with the transformer foundation, averaged over students."""
    transformer = grid.FOUNDATIONS["transformer"]
    found = {}
    for shots in sorted({key[3] for key in cells}):
        chosen = [v for k, v in cells.items() if k[:2] == ("digits", transformer) and k[3] == shots]
        row = difference(chosen, ours, theirs)
        if row:
            found[str(shots)] = row
    return found


def by_foundation(cells: Accuracies, ours: str, theirs: str) -> dict[str, Row]:
    """For each target and foundation, averaged over students and shots up to 10."""
    found = {}
    for target, foundation in sorted({key[:2] for key in cells}):
        here = (target, foundation)
        row = difference(
            [v for k, v in cells.items() if k[:2] == here and k[3] <= MOST_SHOTS], ours, theirs
        )
        if row:
            found[f"{target}, {foundation}"] = row
    return found


def by_student(cells: Accuracies, ours: str, theirs: str) -> dict[str, Row]:
    """With the transformer foundation, for each target, student and number of images."""
    transformer = grid.FOUNDATIONS["transformer"]
    return {
        f"{target}, {student}, {shots}": row
        for (target, foundation, student, shots), methods in sorted(cells.items())
        if foundation == transformer and (row := difference([methods], ours, theirs))
    }


def shares(cells: Accuracies, ours: str = "tdmr") -> Row:
    """In how many cells TDMR is best, or no method's lead over it is more than noise.

    `ours` is TDMR, or a variant of it that is judged in its place.
    Noise: the paired 95 % interval over seeds of (TDMR - the other) reaches zero. A method counts
    that has LEAST_SEEDS in common with TDMR, and a cell that has such a method.
    """
    judged, best, tied, below, losses = 0, 0, 0, 0, []
    for key, methods in cells.items():
        others = [m for m in methods if m in grid.METHODS and m != "tdmr"]
        rows = {m: difference([methods], ours, m) for m in others}
        compared = {m: row for m, row in rows.items() if row and row["n"] >= LEAST_SEEDS}
        if not compared:
            continue
        worse = {m: row for m, row in compared.items() if row["high"] < 0}
        judged += 1
        best += all(row["mean"] >= 0 for row in compared.values())
        tied += not worse
        below += "scratch" in worse
        losses += [
            {"cell": list(key), "to": m, **{k: row[k] for k in ("mean", "low", "high", "n")}}
            for m, row in worse.items()
        ]
    return {
        "cells_judged": judged,
        "best_share": best / judged if judged else None,
        "best_or_tied_share": tied / judged if judged else None,
        "below_scratch": below,
        "losses": losses,
    }


def probes(rows: Iterable[Row]) -> list[Row]:
    """The foundations' own linear probes."""
    found: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for row in rows:
        if "probe" in row:
            found[row["target"], row["foundation"], row["shots"]].append(row["probe"])
    return [
        {"target": t, "foundation": f, "shots": s, "mean": round(mean(values), 5)}
        for (t, f, s), values in sorted(found.items())
    ]


def ablations(rows: list[Row]) -> dict[str, dict[str, Row]]:
    """Each variant minus TDMR as it is, on the same seeds: by "target, student".

    With a foundation that isn't the transformer its name is the third.
    """
    variants: dict[Cell, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    whole: dict[Cell, dict[int, float]] = defaultdict(dict)
    for row in rows:
        cell = row["target"], row["foundation"], row["student"], row["shots"]
        if row["kind"] == "ablation":
            variants[cell][row["method"]][row["seed"]] = row["accuracy"]
        elif (row["kind"], row["method"]) == ("result", "tdmr"):
            whole[cell][row["seed"]] = row["accuracy"]
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for cell in sorted(variants):
        target, foundation, student, _ = cell
        usual = foundation == grid.FOUNDATIONS["transformer"]
        where = ", ".join((target, student) if usual else (target, student, foundation))
        for name in (name for name in grid.ABLATIONS if name in variants[cell]):
            seeds = {"variant": variants[cell][name], "tdmr": whole[cell]}
            row = difference([seeds], "variant", "tdmr")
            if row:
                found[where][name] = row
    return dict(found)


def picked_by_folds(rows: Iterable[Row]) -> Row:
    """TDMR minus each other, and each minus itself in the common setting, paired by draw.

    Only draws count on which every method has picked. The student alone has no foundation, the
    others have the transformer.
    """
    picked: dict[str, dict[Place, Row]] = defaultdict(dict)
    common: dict[str, dict[Place, float]] = defaultdict(dict)
    for row in rows:
        usual = row["foundation"] in (None, grid.FOUNDATIONS["transformer"])
        if row["target"] != "digits" or not usual:
            continue
        place = row["student"], row["shots"], row["seed"]
        if row["kind"] == grid.FOLDED:
            picked[row["method"]][place] = row
        elif row["kind"] == "result":
            common[row["method"]][place] = row["accuracy"]
    places = sorted(set.intersection(*map(set, picked.values()))) if picked else []
    found = {m: _numbered({p: r["accuracy"] for p, r in picked[m].items()}, places) for m in picked}
    both = {m: {"picked": found[m], "common": _numbered(common[m], places)} for m in found}
    picks = {m: [picked[m][p]["picked"] for p in places] for m in found}
    return {
        "folds": folds.FOLDS,
        "draws": [list(place) for place in places],
        "picks": {m: {s: p.count(s) for s in grid.SETTINGS if s in p} for m, p in picks.items()},
        "tdmr_minus": {
            m: lead for m in found if m != "tdmr" and (lead := difference([found], "tdmr", m))
        },
        "minus_common": {
            m: lead for m in found if (lead := difference([both[m]], "picked", "common"))
        },
    }


def _numbered(accuracies: dict[Place, float], places: list[Place]) -> dict[int, float]:
    return {n: accuracies[place] for n, place in enumerate(places) if place in accuracies}


def costs(rows: list[Row]) -> dict[str, Row]:
    """What a training took by method: medians over its rows."""
    by_method: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "result":
            by_method[row["method"]].append(row)
    return {
        method: {
            "student_seconds": median(r["seconds"] for r in found),
            "foundation_forwards": median(r.get("views", 0) + r["online_forwards"] for r in found),
            "cache_bytes": median(r.get("cache_bytes", 0) for r in found),
        }
        for method, found in by_method.items()
    }


def _print(summary: Row, console: Console) -> None:
    methods = [*grid.METHODS, grid.ONLINE, grid.SHUFFLED]
    table = Table("target", "foundation", "student", "shots", "seeds", *methods)
    grouped: dict[Cell, dict[str, Row]] = defaultdict(dict)
    for c in summary["cells"]:
        grouped[c["target"], c["foundation"], c["student"], c["shots"]][c["method"]] = c
    for key, found in sorted(grouped.items()):
        values = [f"{found[m]['mean']:.4f}" if m in found else "" for m in methods]
        seeds = str(min(c["seeds"] for c in found.values()))
        table.add_row(*map(str, key), seeds, *values)
    console.print(table)
    for title, block in (
        *((f"TDMR - {m}", rows) for m, rows in summary["tdmr_minus"].items()),
        *((f"TDMR - {m}", rows) for m, rows in summary["tdmr_minus_by_foundation"].items()),
        *((f"reused head - {m}", rows) for m, rows in summary["reused_minus"].items()),
        *((f"reused head - {m}", r) for m, r in summary["reused_minus_by_foundation"].items()),
        ("reused head - TDMR", summary["reused_minus_tdmr_by_student"]),
        ("shuffled - scratch", summary["shuffled_minus_scratch"]),
        *((f"{where}, minus TDMR", block) for where, block in summary["ablations"].items()),
        ("picked by folds, TDMR -", summary["picked_by_folds"]["tdmr_minus"]),
        ("picked by folds - common setting", summary["picked_by_folds"]["minus_common"]),
    ):
        for name, row in block.items():
            console.print(f"{title:36} {name:30} {points(row)}")
    for name in ("cells_judged", "best_share", "best_or_tied_share", "below_scratch"):
        console.print(f"{name:20} {summary[name]}")


def points(row: Row) -> str:
    """A paired difference for reading."""
    if row["low"] is None:
        return f"{100 * row['mean']:+.2f} points, one seed"
    return (
        f"{100 * row['mean']:+.2f} points ({100 * row['low']:+.2f} to {100 * row['high']:+.2f}), "
        f"{row['wins']} of {row['n']}"
    )
