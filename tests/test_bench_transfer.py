"""The transfer benchmark: its arithmetic on made-up rows, and a tiny run of all of its code."""

from __future__ import annotations

import json
import subprocess
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks.machine import commit
from benchmarks.transfer import choosing, folds, grid, lab, report, work
from benchmarks.transfer.__main__ import RESULTS
from benchmarks.transfer.grid import Draw
from benchmarks.transfer.ledger import Ledger
from benchmarks.transfer.work import Unit, measure

BRIEF = "a quarter of the steps, no mixtures"
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


def test_foundations_are_compared_over_students_and_shots_up_to_ten() -> None:
    there = {"foundation": CNN}
    rows = [
        row("tdmr", 0, 0.9, **there), row("kd", 0, 0.8, **there),
        row("tdmr", 1, 0.9, **there), row("kd", 1, 0.9, **there),
        row("tdmr", 0, 0.6, **there, shots=10), row("kd", 0, 0.8, **there, shots=10),
        row("tdmr", 1, 0.8, **there, shots=10), row("kd", 1, 0.8, **there, shots=10),
        row("tdmr", 0, 0.5, **there, shots=20), row("kd", 0, 0.9, **there, shots=20),
        row("tdmr", 0, 0.7), row("kd", 0, 0.6),
    ]  # fmt: skip
    found = report.by_foundation(report.accuracies(rows), "tdmr", "kd")
    assert list(found) == [f"digits, {CNN}", f"digits, {VIT}"]
    # By seed -0.05 and 0.0, after averaging over 5 and 10 shots.
    assert found[f"digits, {CNN}"]["mean"] == pytest.approx(-0.025)
    assert [found[f"digits, {name}"]["n"] for name in (CNN, VIT)] == [2, 1]


def test_the_student_alone_is_in_the_cells_of_every_foundation_with_the_seeds_run_there() -> None:
    rows = [
        row("scratch", 0, 0.8), row("tdmr", 0, 0.9), row("tdmr", 0, 0.7, foundation=CNN),
        row("scratch", 1, 0.6), row("tdmr", 1, 0.9),
    ]  # fmt: skip
    cells = report.accuracies(rows)
    assert {key[1]: methods["scratch"] for key, methods in cells.items()} == {
        VIT: {0: 0.8, 1: 0.6},
        CNN: {0: 0.8},
    }


def test_tied_is_when_no_lead_is_more_than_noise() -> None:
    def cell(
        student: str, tdmr: list[float], kd: list[float], ours: str = "tdmr"
    ) -> list[dict[str, Any]]:
        pairs = enumerate(zip(tdmr, kd, strict=True))
        return [
            r
            for seed, (a, b) in pairs
            for r in (row(ours, seed, a, student=student), row("kd", seed, b, student=student))
        ]

    rows = [
        *cell("best", [0.9, 0.92, 0.91], [0.8, 0.81, 0.8]),
        *cell("tied", [0.9, 0.92, 0.91], [0.93, 0.90, 0.92]),
        *cell("lost", [0.8, 0.81, 0.8], [0.9, 0.92, 0.91]),
        *cell("of two seeds", [0.9, 0.7], [0.8, 0.9]),
        *(row("aft", seed, 1.0, student="best") for seed in (0, 1)),
    ]
    found = report.shares(report.accuracies(rows))
    assert found["cells_judged"] == 3
    assert found["best_share"] == pytest.approx(1 / 3)
    assert found["best_or_tied_share"] == pytest.approx(2 / 3)
    assert [loss["cell"][2] for loss in found["losses"]] == ["lost"]
    # A variant is judged in TDMR's place, and not against it.
    rows += cell("lost", [0.9, 0.95, 0.93], [0.9, 0.92, 0.91], ours=grid.REUSED)
    found = report.shares(report.accuracies(rows), grid.REUSED)
    assert (found["cells_judged"], found["losses"]) == (1, [])


@pytest.mark.parametrize(("half", "first"), [(lab.RESULT, 1), (lab.DEVELOPED, 0)])
def test_results_are_measured_on_the_half_that_nothing_was_developed_on(
    tmp_path: Path, half: slice, first: int
) -> None:
    lab.write(Draw("digits", VIT, "test_resnet", 2, 0), tmp_path / "data", half)
    places = {int(path.stem) for path in tmp_path.rglob("*.png")}
    assert len(places) == 899 - first
    assert all(place % 2 == first for place in places)


def test_recipes_are_chosen_on_the_other_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(work, "write", lambda draw, folder, half: given.append(half))
    for kind in ("result", "ablation", grid.CHOICE):
        measure(Unit(kind, Draw("digits", VIT, "test_resnet", 2, 0), ()), tmp_path)
    assert given == [lab.RESULT, lab.RESULT, lab.DEVELOPED]


def test_folds_hold_each_training_image_out_once_and_no_test_image(tmp_path: Path) -> None:
    data = tmp_path / "data"
    lab.write(Draw("digits", VIT, "test_resnet", 5, 0), data)
    trained = {path.name for path in data.glob("train/*/*")}
    for fold in range(folds.FOLDS):
        folds.write(data, tmp_path / str(fold), fold)
    halves = [
        [{path.name for path in tmp_path.glob(f"{fold}/{half}/*/*")} for half in ("train", "test")]
        for fold in range(folds.FOLDS)
    ]
    assert [(len(train), len(held_out)) for train, held_out in halves] == [(20, 30), (30, 20)]
    assert all(train | held_out == trained for train, held_out in halves)
    assert not halves[0][1] & halves[1][1]


def test_a_class_of_one_image_has_no_folds(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "0.png").touch()
    with pytest.raises(ValueError, match=r"a: 1 image\(s\) for 2 folds"):
        folds.write(tmp_path, tmp_path / "fold", 0)


def test_of_settings_with_equal_folds_the_common_one_is_picked() -> None:
    assert next(iter(grid.SETTINGS)) == grid.COMMON
    assert folds.pick({grid.COMMON: [0.5, 0.7], "no mixtures": [0.7, 0.5]}) == grid.COMMON
    assert folds.pick({grid.COMMON: [0.5, 0.7], "no mixtures": [0.8, 0.5]}) == "no mixtures"


def test_what_folds_picked_is_paired_with_the_others_on_the_same_draw() -> None:
    rows = [
        *(row("tdmr", seed, 0.9, kind=grid.FOLDED, picked=grid.COMMON) for seed in (0, 1)),
        row("scratch", 0, 0.8, kind=grid.FOLDED, foundation=None, picked="half the rate"),
        *(row("tdmr", seed, 0.85) for seed in (0, 1)),
        row("kd", 0, 0.1),
    ]
    found = report.picked_by_folds(rows)
    assert found["draws"] == [["s", 5, 0]]
    assert found["picks"] == {"scratch": {"half the rate": 1}, "tdmr": {grid.COMMON: 1}}
    assert found["tdmr_minus"]["scratch"]["n"] == 1
    assert found["tdmr_minus"]["scratch"]["mean"] == pytest.approx(0.1)
    assert {m: r["n"] for m, r in found["minus_common"].items()} == {"tdmr": 1}
    assert found["minus_common"]["tdmr"]["mean"] == pytest.approx(0.05)


def test_what_is_ablated_is_measured_whole_on_the_same_draws() -> None:
    blocks = [(block, set(block.draws())) for block in grid.blocks()]
    results = [(block, draws) for block, draws in blocks if block.kind == "result"]
    whole = set[Draw]().union(*(draws for block, draws in results if "tdmr" in block.methods))
    ablated = [(block, draws) for block, draws in blocks if block.kind == "ablation"]
    assert {draw.target for _, draws in ablated for draw in draws} == set(grid.TARGETS)
    for block, draws in ablated:
        assert draws <= whole
        assert set(block.methods) <= set(grid.ABLATIONS)


def test_ablations_of_another_foundation_are_told_apart() -> None:
    rows = [
        *(row("tdmr", 0, 0.9, foundation=foundation) for foundation in (VIT, CNN)),
        row(grid.HEAD, 0, 0.8, kind="ablation"),
        row(grid.HEAD, 0, 0.7, kind="ablation", foundation=CNN),
    ]
    found = report.ablations(rows)
    assert {where: round(each[grid.HEAD]["mean"], 3) for where, each in found.items()} == {
        "digits, s": -0.1,
        f"digits, s, {CNN}": -0.2,
    }


def test_of_two_units_that_overlapped_the_first_counts(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    ledger = Ledger(path)
    for accuracy in (0.9, 0.8):
        ledger.add(row("scratch", 0, accuracy))
    assert [each["accuracy"] for each in ledger.rows] == [0.9]
    assert Ledger(path).rows == ledger.rows


def test_every_method_gets_the_same_options() -> None:
    draw = Draw("digits", VIT, "test_resnet", 2, 0)
    assert grid.spec(draw).options.training.steps == grid.STEPS
    assert "method" not in signature(grid.spec).parameters


def test_every_method_is_measured_in_the_setting_that_it_picked() -> None:
    settings = json.loads((RESULTS / "choices.json").read_text())["settings"]
    assert {method: found["picked"] for method, found in settings.items()} == dict.fromkeys(
        grid.FEW, grid.COMMON
    )
    assert all(len(found["minus_common"]) == len(grid.SETTINGS) - 1 for found in settings.values())


def test_stored_results_alone_dont_make_a_commit_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, stored = tmp_path / "code.py", tmp_path / "benchmarks" / "results" / "rows.jsonl"
    stored.parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert commit() == "unknown"
    for path in (code, stored):
        path.write_text("1")
    author = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "begin"]):
        subprocess.run(["git", *words], check=True)
    clean = commit()
    stored.write_text("2")
    monkeypatch.chdir(stored.parent)
    assert commit() == clean
    code.write_text("2")
    assert commit() == f"{clean}-dirty"


def test_the_control_never_gives_an_image_its_own_proxies() -> None:
    class Teacher:
        class features:  # noqa: N801 - stands for an attribute
            array = np.zeros((2, 9, 4))

    assert not np.any(lab.Shuffled(Teacher(), 3)._other == np.arange(9))  # type: ignore[arg-type]  # what is given is meant to vary


def test_a_tiny_run_of_every_kind_of_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "FAST_VIEWS", 2)
    monkeypatch.setattr(grid, "STEPS", 2)
    monkeypatch.setattr(grid, "FAST", True)
    brief = {"training": {"steps": 1}, "views": {"mix": 0.0}}
    monkeypatch.setattr(grid, "SETTINGS", {grid.COMMON: {}, BRIEF: brief})
    ledger = Ledger(tmp_path / "rows.jsonl")
    draw = Draw("digits", VIT, "test_resnet", 2, 0)
    methods = ("scratch", "kd", "tdmr", grid.REUSED, grid.ONLINE, grid.SHUFFLED)
    units = [
        Unit("result", draw, methods),
        Unit("ablation", draw, (grid.RAW, "last tap only", "K = 1")),
        Unit(grid.FOLDED, draw, ("scratch", "tdmr")),
    ]
    for unit in units:
        for found in measure(unit, tmp_path / "cache"):
            ledger.add({**found, "commit": "c"})
    briefly = grid.named("scratch", BRIEF)
    choice = Unit(grid.CHOICE, draw, (*grid.RECIPES, "kd", "scratch", briefly))
    chosen = [{**found, "commit": "c"} for found in measure(choice, tmp_path / "cache")]
    # A second start finds everything measured.
    again = Ledger(tmp_path / "rows.jsonl")
    assert [unit.without(again) for unit in units] == [None] * len(units)

    report.write(again.rows, tmp_path, "transfer", [], Console(quiet=True))
    summary = json.loads((tmp_path / "transfer.json").read_text())
    assert {c["method"] for c in summary["cells"]} == set(methods)
    assert set(summary["tdmr_minus"]) >= {"scratch", "kd", grid.ONLINE}
    assert summary["tdmr_minus"]["kd"]["2"]["n"] == 1
    assert set(summary["shuffled_minus_scratch"]) == {"2"}
    means = {c["method"]: c["mean"] for c in summary["cells"]}
    reused = summary["reused_minus"]["tdmr"]["2"]["mean"]
    assert reused == pytest.approx(means[grid.REUSED] - means["tdmr"], abs=1e-5)
    (alone,) = summary["reused_minus_tdmr_by_student"].items()
    assert (alone[0], alone[1]["mean"]) == ("digits, test_resnet, 2", reused)
    # 20 images in 2 views; the student alone costs none.
    assert summary["costs"]["tdmr"]["foundation_forwards"] == 40
    assert summary["costs"]["scratch"]["foundation_forwards"] == 0
    (ablated,) = summary["ablations"].values()
    assert list(ablated) == ["last tap only", grid.RAW, "K = 1"]
    assert {row["n"] for row in ablated.values()} == {1}
    assert summary["probe"][0]["mean"] > 0.5
    by_folds = {r["method"]: r for r in again.rows if r["kind"] == grid.FOLDED}
    assert {len(each) for r in by_folds.values() for each in r["folds"].values()} == {folds.FOLDS}
    assert all(set(r["folds"]) == set(grid.SETTINGS) for r in by_folds.values())
    lead = by_folds["tdmr"]["accuracy"] - by_folds["scratch"]["accuracy"]
    assert summary["picked_by_folds"]["tdmr_minus"]["scratch"]["mean"] == pytest.approx(lead)
    assert set(summary["picked_by_folds"]["minus_common"]) == {"scratch", "tdmr"}

    choosing.write(chosen, tmp_path, "choices", [], Console(quiet=True))
    choices = json.loads((tmp_path / "choices.json").read_text())
    (cell,) = choices["cells"]
    assert set(cell["means"]) == {*grid.RECIPES, "kd", "scratch", briefly}
    flat = cell["means"]["depth flat"] - cell["means"][grid.AS_IT_IS]
    assert choices["minus_as_it_is"]["depth flat"]["2"]["mean"] == pytest.approx(flat, abs=1e-5)
    assert choices["minus_as_it_is"]["depth flat"]["all"]["n"] == 1
    (minus,) = choices["settings"]["scratch"]["minus_common"].values()
    assert minus["mean"] == pytest.approx(
        cell["means"][briefly] - cell["means"]["scratch"], abs=1e-5
    )


@pytest.mark.parametrize(
    ("gains", "picked"),
    [((0.01, 0.012, 0.011), "half the rate"), ((0.05, -0.02, 0.01), grid.COMMON), ((), "common")],
)
def test_a_setting_is_left_only_for_one_that_leads_by_more_than_noise(
    tmp_path: Path, gains: tuple[float, ...], picked: str
) -> None:
    rows = [row("tdmr", 900, 0.8)]
    for student, gain in zip("abc", gains, strict=False):
        rows += [
            row("kd", 900, 0.9, student=student),
            row("kd, half the rate", 900, 0.9 + gain, student=student),
            row("kd, twice the rate", 900, 0.85, student=student),
        ]
    choosing.write(rows, tmp_path, "choices", [], Console(quiet=True))
    found = json.loads((tmp_path / "choices.json").read_text())["settings"]["kd"]
    assert found["picked"] == picked
    if gains:
        half = found["minus_common"]["half the rate"]
        assert half["mean"] == pytest.approx(sum(gains) / 3)
        assert (half["wins"], half["n"]) == (sum(gain > 0 for gain in gains), 3)
