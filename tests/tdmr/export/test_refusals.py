"""A format that isn't the student is refused with its numbers, and the rest is published."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmr import bundle
from tdmr.config import ExportOptions
from tdmr.data.index import load_index
from tdmr.data.pixels import decode
from tdmr.errors import Stopped
from tdmr.export import classifier, formats, publish
from tdmr.export.publish import Making
from tdmr.export.verify import Comparison, Reference, compare, verdict
from tdmr.progress import Steps
from tests.tdmr.export.conftest import Made

Done = dict[str, Any]


@pytest.fixture
def out(made: Made, tmp_path: Path) -> Path:
    """A timm folder without any other format."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(made.out / name, folder / name)
    (folder / "work").mkdir()
    return folder


@pytest.fixture
def making(made: Made, out: Path) -> Making:
    student = classifier.load(out)
    student.temperature = 1.5
    held_out = load_index(made.data).held_out[::3]
    pixels = np.stack([decode(made.data / image.file, 32) for image in held_out])
    logits = classifier.logits_of(student, pixels)
    reference = Reference(student, pixels, logits.argmax(axis=1), logits)
    return Making(
        reference=reference,
        out=out,
        work=out / "work",
        facts={"classes": ["circle", "cross", "square"]},
        calibration=lambda: [images.numpy() for images in student.inputs(pixels, 3)],
        options=ExportOptions(formats=("torch_export",), latency_runs=20),
    )


def published(making: Making) -> tuple[Done, list[str], set[str]]:
    warned: list[str] = []
    steps = Steps(publish.steps_of(making.options), lambda done, total: None)
    rows = publish.publish(making, steps, warned.append)["formats"]
    return rows, warned, {path.name for path in making.out.iterdir()} - {"work"}


def perturbed(making: Making) -> Making:
    """What the exporter writes is a student whose classifier is a little off."""
    student = making.reference.classifier
    other = classifier.load(making.out)
    other.temperature = student.temperature
    with torch.no_grad():
        other.model.get_classifier().bias.add_(torch.tensor([0.02, -0.02, 0.0]))
    made = replace(making)
    vars(made)["program"] = formats.capture(other)
    return made


def test_an_export_that_drifts_is_refused_with_its_numbers(making: Making) -> None:
    rows, warned, files = published(perturbed(making))
    row = rows["torch_export"]
    assert row["published"] is False
    assert row["largest_logit_difference"] == pytest.approx(0.02, abs=1e-4)
    assert (row["images"], row["file"]) == (8, "model.pt2")
    assert row["bytes"] > 1_000_000
    assert row["reason"] == "a logit differs by 0.02, more than 0.001"
    assert warned == ["model.pt2 isn't in the bundle: a logit differs by 0.02, more than 0.001."]
    assert files == {"model.safetensors", "config.json"}
    assert "latency" not in row


def test_without_the_guard_it_would_be_published(
    making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "verdict", lambda found, options, *, quantised: None)
    rows, _, files = published(perturbed(making))
    assert rows["torch_export"]["published"] is True
    assert "model.pt2" in files


def test_the_rest_of_the_bundle_ships(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same through packaging: one format drifts, another can't be written at all."""

    def drift(program: Any, path: Path) -> None:
        with torch.no_grad():
            (bias,) = [p for _, p in program.named_parameters() if p.shape == (3,)]
            bias.add_(torch.tensor([0.5, 0.0, -0.5]))
        torch.export.save(program, path)

    def fail(*_: object) -> None:
        raise RuntimeError(f"no kernel for {tmp_path / 'bundle' / '.work' / 'model.onnx'}\nmore")

    monkeypatch.setattr(formats, "write_program", drift)
    monkeypatch.setattr(formats, "write_onnx", fail)
    warned: list[str] = []
    out = tmp_path / "bundle"
    metrics = bundle.package(
        made.trained, out, data=made.data, cache=made.cache, warn=warned.append
    )
    rows = metrics["exports"]["formats"]
    assert [row["published"] for row in rows.values()] == [False, False, False]
    assert rows["torch_export"]["largest_logit_difference"] == pytest.approx(0.5, abs=1e-3)
    assert rows["onnx"]["reason"] == "RuntimeError: no kernel for model.onnx"
    assert rows["int8"]["reason"] == "it is made of model.onnx, which was refused"
    assert len(warned) == 3
    names = {path.name for path in out.iterdir()}
    whole = {path.name for path in made.out.iterdir()}
    assert whole - names == {"model.onnx", "model.int8.onnx", "model.pt2", "predict_onnx.py"}
    assert json.loads((out / "metrics.json").read_text()) == metrics
    card = (out / "README.md").read_text()
    assert "- `model.onnx` was refused: RuntimeError: no kernel for model.onnx." in card
    assert "predict_onnx.py" not in card


def comparison(**changes: Any) -> Comparison:
    same = Comparison(
        images=1000, agreement=1.0, largest_logit_difference=1e-6, accuracy=0.9,
        accuracy_drop=0.0, softmax_error=1e-7,
    )  # fmt: skip
    return replace(same, **changes)


@pytest.mark.parametrize(
    ("changes", "quantised", "words"),
    [
        ({}, False, None),
        ({"largest_logit_difference": 1e-3}, False, None),
        ({"largest_logit_difference": 1.1e-3}, False, "logit differs by 0.0011, more than 0.001"),
        ({"largest_logit_difference": float("inf")}, False, "logit differs by inf"),
        ({"agreement": 0.9989}, False, "agrees on 0.9989 of the images, less than 0.999"),
        ({"softmax_error": 2e-4}, False, "a probability is 0.0002 off"),
        ({"softmax_error": float("inf")}, True, "a probability is inf off"),
        ({"largest_logit_difference": 3.0, "agreement": 0.95}, True, None),
        ({"accuracy_drop": 0.01}, True, None),
        ({"accuracy_drop": 0.011}, True, "accuracy is 0.0110 below the student's, more than 0.01"),
        ({"accuracy_drop": -0.5}, True, None),
        ({"agreement": 0.89}, True, "agrees on 0.8900 of the images, less than 0.9"),
    ],
)
def test_verdicts(changes: dict[str, float], quantised: bool, words: str | None) -> None:
    found = verdict(comparison(**changes), ExportOptions(), quantised=quantised)
    assert (found is None) if words is None else (words in (found or ""))


def test_int8_is_refused_where_it_costs_too_much(making: Making) -> None:
    """Calibrated on one black image, activations are cut off, and answers change."""
    black = np.zeros((1, 3, 32, 32), dtype=np.float32)
    options = ExportOptions(formats=("int8",), latency_runs=20)
    rows, warned, files = published(replace(making, options=options, calibration=lambda: [black]))
    row = rows["int8"]
    assert row["published"] is False
    assert row["accuracy_drop"] > 0.01
    assert f"its accuracy is {row['accuracy_drop']:.4f} below the student's" in row["reason"]
    assert len(warned) == 1
    assert files == {"model.safetensors", "config.json"}  # nor the ONNX file that it was made of


def test_another_batch_size_is_tried(making: Making) -> None:
    """A file that mixes up the images of a batch of three alone."""
    student = making.reference.classifier

    def stuck(images: Any) -> Any:
        with torch.no_grad():
            logits, chances = student(torch.from_numpy(images))
        if len(images) == 3:
            logits = logits.flip(0)
        return logits.numpy(), chances.numpy()

    found = compare(stuck, making.reference)
    assert found.agreement == 1.0
    assert found.largest_logit_difference > 1e-3


def test_what_answers_with_too_few_rows_is_refused(making: Making) -> None:
    def one(images: Any) -> Any:
        chances = np.full((1, 3), 1 / 3, dtype=np.float32)
        return np.zeros((1, 3), dtype=np.float32), chances

    with pytest.raises(ValueError, match=r"\(1, 3\) instead of \(8, 3\)"):
        compare(one, making.reference)


def test_what_isn_t_a_number_is_as_far_as_can_be(making: Making) -> None:
    def nothing(images: Any) -> Any:
        return (np.full((len(images), 3), np.nan, dtype=np.float32),) * 2

    found = compare(nothing, making.reference)
    assert found.largest_logit_difference == float("inf")
    assert found.as_dict()["largest_logit_difference"] is None
    assert "a logit differs by inf" in (verdict(found, ExportOptions(), quantised=False) or "")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_its_package_a_format_is_refused(
    making: Making, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    made = replace(making, options=ExportOptions(formats=("onnx", "int8"), latency_runs=20))
    for wanted in ("onnx", "int8"):
        with pytest.raises(publish.RefusedError, match=f"pip install {package}$"):
            made.write(wanted, made.work / "x")  # type: ignore[arg-type]  # what is given is meant to vary


def test_what_cannot_be_measured_is_refused(
    making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that one process can load and another can't."""
    monkeypatch.setitem(publish.KINDS, "torch_export", "onnx")
    rows, _, files = published(making)
    assert rows["torch_export"]["reason"].startswith("MeasureError: ")
    assert "model.pt2" not in files


@pytest.mark.parametrize(
    ("error", "raised"), [(Stopped("package", 1), Stopped), (OSError(28, "full"), OSError)]
)
def test_a_stop_and_a_full_disk_are_no_refusals(
    making: Making, monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(formats, "write_program", fail)
    with pytest.raises(raised):
        published(making)


def test_nothing_is_measured_where_no_format_is_wanted(making: Making) -> None:
    made = replace(making, options=ExportOptions(formats=()))
    warned: list[str] = []
    found = publish.publish(made, Steps(1, lambda done, total: None), warned.append)
    assert (found["formats"], found["student"]["latency"], warned) == ({}, None, [])
    assert found["student"]["bytes"] == (made.out / "model.safetensors").stat().st_size
