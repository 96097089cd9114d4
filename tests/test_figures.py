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
WORDS = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())

RIVALS = ("scratch", "kd", "fitnet", "aft")
LEADS = {
    "2": ("tdmr_minus", "2"),
    "5": ("tdmr_minus", "5"),
    "10": ("tdmr_minus", "10"),
    "all three": ("tdmr_minus_by_foundation", "digits, letters_vit"),
    "digits, CNN foundation, 2 to 10 images": ("tdmr_minus_by_foundation", "digits, letters_cnn"),
    "digits, hybrid foundation, 2 to 10": ("tdmr_minus_by_foundation", "digits, letters_hybrid"),
    "digits, transformer foundation, 20": ("tdmr_minus", "20"),
    "drawn patterns, transformer foundation, 5": (
        "tdmr_minus_by_foundation",
        "patterns, letters_vit",
    ),
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


@pytest.mark.parametrize("label", LEADS)
def test_leads(label: str) -> None:
    table, name = LEADS[label]
    expected = [said(TRANSFER[table][m][name]) for m in RIVALS]
    assert " | ".join(expected) in rows("README.md", label)


def test_leads_in_sentences() -> None:
    minus, judged = TRANSFER["tdmr_minus"], TRANSFER["cells_judged"]
    best, tied = (round(judged * TRANSFER[name]) for name in ("best_share", "best_or_tied_share"))
    simkd, rd = (
        TRANSFER["tdmr_minus_by_foundation"][m]["digits, letters_vit"] for m in ("simkd", "rd")
    )
    for sentence in (
        f"Against SimKD there is no lead over the three: {said(simkd)};",
        f"{said(minus['simkd']['2'])} at 2 images, {said(minus['simkd']['5'])} at 5, "
        f"{said(minus['simkd']['10'])} at 10",
        f"Of one-stage reprogramming distillation TDMR is ahead by {said(rd)},",
        f"in the loop at 5 images by {said(minus['kd_online']['5'])},",
        f"Of all {judged} cells TDMR has the best mean in {best}, and in {tied} nothing beats it",
    ):
        assert sentence in WORDS
    reused = TRANSFER["reused_minus_by_foundation"]
    by_student = TRANSFER["reused_minus_tdmr_by_student"]
    for sentence in (
        f"ahead of SimKD on digits by {said(reused['simkd']['digits, letters_vit'])},",
        f"of TDMR as it is on patterns by {said(reused['tdmr']['patterns, letters_vit'])}, which",
        f"on patterns it gains {said(by_student['patterns, test_vit, 5'])}, the CNN "
        f"{said(by_student['patterns, test_resnet, 5'])}.",
        f"Of {TRANSFER['reused_shares']['cells_judged']} cells it loses one: to FitNets,",
    ):
        assert sentence in WORDS
    (loss,) = TRANSFER["reused_shares"]["losses"]
    assert (loss["cell"][2:], loss["to"]) == (["test_resnet", 5], "fitnet")
    mean, low, high = (f"{-100 * loss[name]:.1f}" for name in ("mean", "high", "low"))
    assert f"the CNN student with 5 digits, by {mean} ({low} to {high})." in WORDS
    assert (TRANSFER["below_scratch"], {loss["to"] for loss in TRANSFER["losses"]}) == (
        0,
        {"simkd"},
    )
    for loss in TRANSFER["losses"]:
        mean, low, high = (f"{-100 * loss[name]:.1f}" for name in ("mean", "high", "low"))
        assert re.search(
            rf"{mean}( points)? at {loss['cell'][3]}( images)? \({low} to {high}\)", WORDS
        )


def test_leads_with_settings_picked_by_folds() -> None:
    found = TRANSFER["picked_by_folds"]["tdmr_minus"]
    for method, words in (
        ("scratch", "the student alone by "),
        ("kd", "plain distillation by "),
        ("fitnet", "FitNets by "),
        ("aft", "AFT by "),
    ):
        assert words + said(found[method]) in WORDS


@pytest.mark.parametrize(
    ("label", "where"),
    [
        ("digits, 2 images", "digits, {}, 2"),
        ("digits, 5", "digits, {}, 5"),
        ("digits, 10", "digits, {}, 10"),
        ("patterns, 5", "patterns, {}, 5"),
    ],
)
def test_a_reused_head(label: str, where: str) -> None:
    found = TRANSFER["reused_minus_tdmr_by_student"]
    students = ("test_resnet", "test_vit", "test_coatnet")
    expected = [said(found[where.format(student)]) for student in students]
    assert " | ".join(expected) in rows("docs/method.md", label)


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
    for name, before, after in (
        ("warm_epoch_over_plain", "an epoch costs", " over the rounds) that of the student alone"),
        ("cold_job_over_online", "the first job", ") that with the foundation in the loop"),
    ):
        row = {k: f"{v:.2f}" for k, v in COST["ratios"][name].items()}
        assert f"{before} {row['median']} times ({row['low']} to {row['high']}{after}" in WORDS
    large, tiny = (f"{100 * COST[f'pipeline_over_memory_{s}']:.0f}" for s in ("student", "tiny"))
    assert (
        f"leave {large} % of the steps per second of batches ready in memory at 224 pixels, and "
        f"{tiny} % for a tiny student at 32" in WORDS
    )


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
