"""evaluation.json and its pictures, of outputs whose figures are known."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdmr.evaluation import figures, pictures, report, temperature
from tdmr.evaluation.report import Judged
from tests.tdmr.evaluation.test_temperature import drawn

CLASSES = ["a", "b", "c", "d"]


def judged(images: int, factor: float = 1.0, seed: int = 0) -> Judged:
    logits, labels = drawn(images, seed)
    return Judged(factor * logits, labels, [f"{number}.png" for number in range(images)])


def evaluated(held_out: Judged, val: Judged | None = None, **changes: Any) -> report.Evaluation:
    given: dict[str, Any] = {"split": "test", "val": val, "seed": 0, **changes}
    return report.evaluate(held_out, CLASSES, **given)


def test_one_split_is_cross_fitted() -> None:
    held_out = judged(600, factor=3.0)
    found = evaluated(held_out)
    about = found.content["calibration"]
    assert about["fitted_on"] == "two halves of the held-out images"
    assert [half["images"] for half in about["halves"]] == [300, 300]
    assert found.temperature == about["temperature"]
    assert found.temperature == pytest.approx(
        temperature.fit(held_out.logits, held_out.labels), abs=1e-6
    )
    assert about["ece_after"] < about["ece_before"] / 2
    assert about["nll_after"] < about["nll_before"]
    crossed = temperature.cross_fit(held_out.logits, held_out.labels, 0)
    right = held_out.logits.argmax(1) == held_out.labels
    after = figures.softmax(held_out.logits, crossed.of_the_other()).max(1)
    assert about["ece_after"] == pytest.approx(
        figures.ece(figures.reliability(after, right)), abs=1e-6
    )
    for half, mask, other in zip(
        about["halves"], (~crossed.second, crossed.second), (1, 0), strict=True
    ):
        sure = figures.softmax(held_out.logits[mask], crossed.temperatures[other]).max(1)
        expected = figures.ece(figures.reliability(sure, right[mask]))
        assert half["ece_after"] == pytest.approx(expected, abs=1e-6)


def test_a_validation_split_is_what_the_temperature_is_fitted_on() -> None:
    val, held_out = judged(800, factor=3.0, seed=1), judged(600, factor=3.0)
    found = evaluated(held_out, val)
    about = found.content["calibration"]
    assert (about["fitted_on"], about["fitting_images"], about["halves"]) == ("val", 800, None)
    assert found.temperature == pytest.approx(temperature.fit(val.logits, val.labels), abs=1e-6)
    assert about["ece_after"] < about["ece_before"] / 2


def test_the_temperature_changes_no_answer() -> None:
    one, three = (evaluated(judged(300, factor)) for factor in (1.0, 3.0))
    for part in ("accuracy", "interval", "confusion", "per_class"):
        assert one.content[part] == three.content[part]
    assert one.content["accuracy"] == pytest.approx(
        (judged(300).logits.argmax(1) == judged(300).labels).mean(), abs=1e-6
    )


def test_the_surest_mistakes_come_first() -> None:
    logits = np.log(
        [
            [0.9, 0.05, 0.03, 0.02],
            [0.2, 0.7, 0.06, 0.04],
            [0.1, 0.1, 0.6, 0.2],
            [0.97, 0.01, 0.01, 0.01],
        ]
    )
    held_out = Judged(logits, np.array([0, 0, 3, 1]), ["w.png", "x.png", "y.png", "z.png"])
    worst = evaluated(held_out, val=judged(20_000)).content["worst"]
    assert [(row["source"], row["true"], row["predicted"]) for row in worst] == [
        ("z.png", "b", "a"),
        ("x.png", "a", "b"),
        ("y.png", "d", "c"),
    ]
    assert worst[1]["probability"] == pytest.approx(0.7, abs=0.02)
    assert worst[1]["probability_of_true"] == pytest.approx(0.2, abs=0.02)
    assert len(evaluated(judged(2000)).content["worst"]) == 50


def test_a_curve_of_many_images_has_100_points() -> None:
    held_out = judged(1000)
    curve = evaluated(held_out).content["risk_coverage"]
    assert len(curve["points"]) == 100
    coverage, risk = curve["points"][-1]
    assert (coverage, risk) == (1.0, pytest.approx(1 - evaluated(held_out).content["accuracy"]))
    assert curve["points"][0][0] == 0.001
    assert 0 < curve["aurc"] < risk


def test_few_images_have_figures_too() -> None:
    found = evaluated(judged(1)).content
    assert found["calibration"]["halves"][0]["images"] == 1
    assert len(found["calibration"]["halves"]) == 1
    assert len(found["risk_coverage"]["points"]) == 1


def test_the_file_is_json_with_short_rows(tmp_path: Path) -> None:
    found = evaluated(judged(50), baselines={"kd": {"accuracy": 0.5}})
    report.write(tmp_path / "evaluation.json", found.content)
    text = (tmp_path / "evaluation.json").read_text()
    assert json.loads(text) == found.content
    assert f"      {json.dumps(found.content['confusion']['counts'][0])},\n" in text
    assert found.content["baselines"] == {"kd": {"accuracy": 0.5}}
    assert found.summary["temperature"] == found.temperature
    assert "halves" not in found.summary


NAMES = ["plain", "$\\frac{1$", "<&>", "猫", "a" * 60, "bell\x07"]


def content(classes: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    held_out = Judged(rng.normal(size=(80, classes)), rng.integers(0, classes, 80), ["x"] * 80)
    names = [*NAMES, *(f"class {number}" for number in range(classes))][:classes]
    return report.evaluate(held_out, names, split="test", val=None, seed=0).content


@pytest.mark.parametrize("classes", [6, 40, 300])
def test_pictures_are_the_same_bytes_every_time(classes: int, tmp_path: Path) -> None:
    found = content(classes)
    drawings = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        pictures.draw(found, folder)
        drawings.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert drawings[0] == drawings[1]
    assert set(drawings[0]) == {"confusion.svg", "reliability.svg", "risk_coverage.svg"}
    for raw in drawings[0].values():
        assert len(raw) < 400_000
        assert b"<dc:date>" not in raw
        ET.fromstring(raw)


def test_names_of_any_script_are_shown_as_they_are(tmp_path: Path) -> None:
    pictures.draw(content(6), tmp_path)
    tree = ET.fromstring((tmp_path / "confusion.svg").read_bytes())
    texts = {
        "".join(part.itertext()).strip() for part in tree.iter("{http://www.w3.org/2000/svg}text")
    }
    assert {
        "plain",
        "$\\frac{1$",
        "<&>",
        "猫",
        "a" * 23 + "…",
        "bell\N{REPLACEMENT CHARACTER}",
    } <= texts
