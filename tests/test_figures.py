"""What README.md and docs/ say of transfer.json and choices.json is what is in them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from benchmarks.served import ROOT
from benchmarks.transfer import grid

RESULTS = ROOT / "benchmarks" / "results"
TRANSFER: dict[str, Any] = json.loads((RESULTS / "transfer.json").read_text(encoding="utf-8"))
CHOICES: dict[str, Any] = json.loads((RESULTS / "choices.json").read_text(encoding="utf-8"))

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


def cells(page: str, label: str) -> list[str]:
    """What a page's only table row with this label says."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| {re.escape(label)} \| (.*) \|$", text, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


@pytest.mark.parametrize("label", BY_SHOTS)
def test_digits_by_images_per_class(label: str) -> None:
    expected = [said(TRANSFER["tdmr_minus"][m][BY_SHOTS[label]]) for m in RIVALS]
    assert cells("README.md", label) == expected


@pytest.mark.parametrize("label", BY_FOUNDATION)
def test_targets_and_foundations(label: str) -> None:
    name = BY_FOUNDATION[label]
    expected = [said(TRANSFER["tdmr_minus_by_foundation"][m][name]) for m in RIVALS]
    assert cells("README.md", label) == expected


def test_twenty_images() -> None:
    expected = [said(TRANSFER["tdmr_minus"][m]["20"]) for m in RIVALS]
    assert cells("README.md", "digits, transformer foundation, 20") == expected


@pytest.mark.parametrize("label", ABLATED)
def test_ablations(label: str) -> None:
    expected = [said(TRANSFER["ablations"][where][ABLATED[label]]) for where in COLUMNS]
    assert cells("docs/method.md", label) == expected


@pytest.mark.parametrize("label", SETTINGS)
def test_settings(label: str) -> None:
    asked = CHOICES["settings"]
    expected = [said(asked[m]["minus_common"][SETTINGS[label]]) for m in (*RIVALS, "tdmr")]
    assert cells("docs/method.md", label) == expected
