"""The transfer benchmark: its arithmetic on made-up rows, and a tiny run of all of its code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks.transfer import choose, grid, lab, report
from benchmarks.transfer.grid import Draw, Setting
from benchmarks.transfer.ledger import Ledger
from benchmarks.transfer.work import Unit, measure

VIT, CNN = grid.FOUNDATIONS["transformer"], grid.FOUNDATIONS["cnn"]


def row(method: str, seed: int, accuracy: float, **where: Any) -> dict[str, Any]:
    place = {"target": "digits", "foundation": VIT, "student": "s", "shots": 5, **where}
    if method == "scratch":
        place["foundation"] = None
    found = {"kind": "result", "method": method, "seed": seed, "accuracy": accuracy}
    return {**found, **place, "seconds": 1.0, "online_forwards": 0, "commit": "c"}


def test_differences_are_paired_by_seed_after_averaging_over_students() -> None:
    rows = [
        row("tdmr", 0, 0.9, student="a"), row("scratch", 0, 0.8, student="a"),
        row("tdmr", 0, 0.7, student="b"), row("scratch", 0, 0.8, student="b"),
        row("tdmr", 1, 0.9, student="a"), row("scratch", 1, 0.8, student="a"),
        row("tdmr", 1, 0.9, student="b"), row("scratch", 1, 0.8, student="b"),
        row("tdmr", 2, 0.5, student="a"), row("scratch", 2, 0.8, student="a"),
    ]  # fmt: skip
    found = report.by_shots(report.accuracies(rows), "tdmr", "scratch")["5"]
    # Seed 2 lacks a student: it doesn't count. Differences 0.0 and 0.1.
    assert found["n"] == 2
    assert found["mean"] == pytest.approx(0.05)
    assert found["wins"] == 1
    assert found["low"] == pytest.approx(0.05 - 12.7062 * 0.05, abs=1e-4)


def test_the_student_alone_is_in_the_cells_of_every_foundation() -> None:
    rows = [row("scratch", 0, 0.8), row("tdmr", 0, 0.9), row("tdmr", 0, 0.7, foundation=CNN)]
    cells = report.accuracies(rows)
    assert {key[1]: methods["scratch"] for key, methods in cells.items()} == {
        VIT: {0: 0.8},
        CNN: {0: 0.8},
    }


def test_tied_is_when_no_lead_is_more_than_noise() -> None:
    def cell(student: str, tdmr: list[float], kd: list[float]) -> list[dict[str, Any]]:
        pairs = enumerate(zip(tdmr, kd, strict=True))
        return [
            r
            for seed, (a, b) in pairs
            for r in (row("tdmr", seed, a, student=student), row("kd", seed, b, student=student))
        ]

    rows = [
        *cell("best", [0.9, 0.92, 0.91], [0.8, 0.81, 0.8]),
        *cell("tied", [0.9, 0.92, 0.91], [0.93, 0.90, 0.92]),
        *cell("lost", [0.8, 0.81, 0.8], [0.9, 0.92, 0.91]),
    ]
    found = report.shares(report.accuracies(rows))
    assert found["cells_judged"] == 3
    assert found["best_share"] == pytest.approx(1 / 3)
    assert found["best_or_tied_share"] == pytest.approx(2 / 3)
    assert [loss["cell"][2] for loss in found["losses"]] == ["lost"]


def test_settings_are_chosen_on_other_images_than_results(tmp_path: Path) -> None:
    places: dict[str, set[int]] = {}
    for name, half in (("choice", lab.CHOICE), ("result", lab.RESULT)):
        lab.write(Draw("digits", VIT, "test_resnet", 2, 0), tmp_path / name, half)
        places[name] = {int(path.stem) for path in (tmp_path / name).rglob("*.png")}
    assert len(places["choice"]) + len(places["result"]) == 1797
    assert not places["choice"] & places["result"]


@pytest.mark.parametrize(("shots", "count"), [(2, 500), (5, 200), (10, 100), (20, 50)])
def test_every_setting_has_the_same_stored_views(shots: int, count: int) -> None:
    draw = Draw("digits", VIT, "test_resnet", shots, 0)
    settings = [Setting(budget, mix) for budget in grid.BUDGETS for mix in grid.MIXES]
    assert {grid.spec(draw, setting).options.views.count for setting in settings} == {count}


def test_the_control_never_gives_an_image_its_own_proxies() -> None:
    class Teacher:
        class features:  # noqa: N801 - stands for an attribute
            array = np.zeros((2, 9, 4))

    assert not np.any(lab.Shuffled(Teacher(), 3)._other == np.arange(9))  # type: ignore[arg-type]


def test_a_tiny_run_of_every_kind_of_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "FAST_VIEWS", 2)
    monkeypatch.setattr(grid, "BASE_STEPS", 2)
    monkeypatch.setattr(grid, "BUDGETS", (1, 2))
    monkeypatch.setattr(grid, "FAST", True)
    monkeypatch.setattr(choose, "CHOICE_SHOTS", (1, 2))
    ledger = Ledger(tmp_path / "rows.jsonl")
    draw = Draw("digits", VIT, "test_resnet", 2, 0)
    chosen = ("scratch", "kd", "tdmr")
    methods = (*chosen, grid.SHUFFLED)
    units = [
        *(Unit("choice", draw, (method,)) for method in chosen),
        Unit("result", draw, methods),
        Unit("ablation", draw, (grid.RAW, "last tap only", "K = 1")),
    ]
    for unit in units:
        for found in measure(unit, ledger.settings(), tmp_path / "cache"):
            ledger.add({**found, "commit": "c"})
    # A second start finds everything measured.
    again = Ledger(tmp_path / "rows.jsonl")
    assert [unit.without(again) for unit in units] == [None] * len(units)
    assert all(len(r["trials"]) == 5 for r in again.rows if r["kind"] == "choice")

    report.write(again.rows, tmp_path, "transfer", [], Console(quiet=True))
    summary = json.loads((tmp_path / "transfer.json").read_text())
    assert {c["method"] for c in summary["cells"]} == set(methods)
    assert set(summary["tdmr_minus"]) >= {"scratch", "kd"}
    assert summary["tdmr_minus"]["kd"]["2"]["n"] == 1
    assert set(summary["shuffled_minus_scratch"]) == {"2"}
    # 20 images in 2 views; the student alone costs none.
    assert summary["costs"]["tdmr"]["foundation_forwards"] == 40
    assert summary["costs"]["scratch"]["foundation_forwards"] == 0
    assert summary["ablations"].keys() == set()  # other shots than the ablations'
    assert summary["probe"][0]["mean"] > 0.5
