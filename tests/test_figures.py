"""What README.md and docs/method.md say of the results is what is in benchmarks/results/."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.served import ROOT
from benchmarks.transfer import grid

RESULTS = ROOT / "benchmarks" / "results"
TRANSFER, CHOICES, COST, DIGITS = (
    json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("transfer", "choices", "cost", "digits")
)
README = (ROOT / "README.md").read_text(encoding="utf-8")

RIVALS = ("scratch", "kd", "fitnet", "aft")
BY_SHOTS = {label: label for label in ("2", "5", "10")}
BY_FOUNDATION = {
    "all three": "digits, letters_vit",
    "digits, CNN foundation, 2 to 10 images": "digits, letters_cnn",
    "digits, hybrid foundation, 2 to 10": "digits, letters_hybrid",
    "drawn patterns, transformer foundation, 5": "patterns, letters_vit",
}
COLUMNS = ("digits, test_resnet", "patterns, test_resnet", "patterns, test_vit")
ABLATED = {
    "all depths from the start": "depth flat",
    "deep taps first": "depth reversed",
    "width opens": "width forward",
    "width narrows": "width reversed",
    "proxies don't fade": "objective flat",
    "proxies come late": "objective reversed",
    "without the relational term": "without the relational term",
    "the reprogrammed head alone, no proxies": grid.HEAD,
    "raw features in the proxies' place": grid.RAW,
    "last tap only": "last tap only",
    "trained proxies": "trained proxies",
    "the same, without preservation": "trained, without preservation",
    "64 views per image": "K = 64",
    "16 views": "K = 16",
    "4 views": "K = 4",
    "1 view": "K = 1",
}
FOLDED = {
    "student alone": "scratch",
    "plain distillation": "kd",
    "FitNets": "fitnet",
    "AFT": "aft",
    "TDMR": "tdmr",
}
COSTS = {
    "student alone": "scratch",
    "TDMR, features not cached yet": "tdmr_cold",
    "TDMR, features cached": "tdmr_warm",
    "distillation with the foundation in the loop": "kd_online",
    "timm's own distillation task": "timm_online",
}
SETTINGS = {
    "600 steps": "a quarter of the steps",
    "no mixtures": "no mixtures",
    "both": "a quarter of the steps, no mixtures",
    "half the rate": "half the rate",
    "twice the rate": "twice the rate",
}


def said(row: dict[str, float]) -> str:
    """A difference in points, as the pages write it."""
    mean, low, high = (f"{100 * row[name]:+.1f}" for name in ("mean", "low", "high"))
    text = f"{mean} in each" if low == high else f"{mean} ({low} to {high})"
    return text.replace("-", "\N{MINUS SIGN}")


def rows(page: str, label: str) -> list[str]:
    """What a page's table rows with this label say."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^\| {re.escape(label)} \| (.*) \|$", text, re.MULTILINE)


@pytest.mark.parametrize("label", BY_SHOTS)
def test_digits_by_images_per_class(label: str) -> None:
    expected = [said(TRANSFER["tdmr_minus"][m][BY_SHOTS[label]]) for m in RIVALS]
    assert " | ".join(expected) in rows("README.md", label)


@pytest.mark.parametrize("label", BY_FOUNDATION)
def test_targets_and_foundations(label: str) -> None:
    name = BY_FOUNDATION[label]
    expected = [said(TRANSFER["tdmr_minus_by_foundation"][m][name]) for m in RIVALS]
    assert " | ".join(expected) in rows("README.md", label)


def test_twenty_images() -> None:
    expected = [said(TRANSFER["tdmr_minus"][m]["20"]) for m in RIVALS]
    assert " | ".join(expected) in rows("README.md", "digits, transformer foundation, 20")


@pytest.mark.parametrize("label", ABLATED)
def test_ablations(label: str) -> None:
    expected = [said(TRANSFER["ablations"][where][ABLATED[label]]) for where in COLUMNS]
    assert " | ".join(expected) in rows("docs/method.md", label)


@pytest.mark.parametrize("label", SETTINGS)
def test_settings(label: str) -> None:
    asked = CHOICES["settings"]
    expected = [said(asked[m]["minus_common"][SETTINGS[label]]) for m in (*RIVALS, "tdmr")]
    assert " | ".join(expected) in rows("docs/method.md", label)


@pytest.mark.parametrize("label", FOLDED)
def test_settings_picked_by_folds(label: str) -> None:
    found, method = TRANSFER["picked_by_folds"], FOLDED[label]
    picks = ", ".join(f"{setting}: {n}" for setting, n in found["picks"][method].items())
    lead = found["tdmr_minus"].get(method)
    expected = [picks, said(found["minus_common"][method]), said(lead) if lead else ""]
    assert " | ".join(expected).strip() in rows("docs/method.md", label)


@pytest.mark.parametrize("label", COSTS)
def test_costs(label: str) -> None:
    name = COSTS[label]
    epoch, job = (COST[of][name]["median"] for of in ("seconds_per_epoch", "job_seconds"))
    forwards = COST["foundation_forwards"][name]
    assert f"{epoch:.2f} | {job:.0f} | {forwards:,}" in rows("README.md", label)


def test_ratios_of_costs() -> None:
    words = " ".join(README.split())
    for name, words_between in (
        ("warm_epoch_over_plain", " times ({low} to {high} over the rounds) that of the student"),
        ("cold_job_over_online", " times ({low} to {high}) that with the foundation in the loop"),
    ):
        row = {k: f"{v:.2f}" for k, v in COST["ratios"][name].items()}
        assert row["median"] + words_between.format(**row) in words
    shares = [COST[f"pipeline_over_memory_{size}"] for size in ("student", "tiny")]
    for share in shares:
        assert f"{share:.0%}".replace("%", " %") in words


def test_the_first_job() -> None:
    """Of the five seeds of bench-digits."""
    (five,) = DIGITS["summary"]
    for label, name in (
        ("foundation's probe (2,949,664 parameters)", "probe"),
        ("student alone", "scratch"),
        ("plain distillation from the probe", "kd"),
    ):
        row = five["tdmr_minus"][name]
        lead = f"{said(row)}, {row['wins']} of {row['n']} seeds"
        expected = [f"{five['mean'][name]:.3f}", lead, f"{five['seconds'][name]:.0f}"]
        assert " | ".join(expected) in rows("README.md", label)
