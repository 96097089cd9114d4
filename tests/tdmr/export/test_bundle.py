"""What is in a bundle: the formats, what is said of them, and how they answer."""

from __future__ import annotations

import json
from hashlib import sha256

import numpy as np
import onnxruntime
import pytest
import timm
import torch

from tdmr.data.index import load_index
from tdmr.data.pixels import decode
from tests.tdmr.export.conftest import LENIENT, Made

FILES = {
    "README.md": "text/markdown",
    "classes.json": "application/json",
    "config.json": "application/json",
    "confusion.svg": "image/svg+xml",
    "evaluation.json": "application/json",
    "exports.json": "application/json",
    "metrics.json": "application/json",
    "model.int8.onnx": "application/octet-stream",
    "model.onnx": "application/octet-stream",
    "model.pt2": "application/octet-stream",
    "model.safetensors": "application/octet-stream",
    "predict_onnx.py": "text/x-python",
    "predict_timm.py": "text/x-python",
    "preprocessing.json": "application/json",
    "reliability.svg": "image/svg+xml",
    "risk_coverage.svg": "image/svg+xml",
}
FORMATS = {"onnx": "model.onnx", "int8": "model.int8.onnx", "torch_export": "model.pt2"}


def pixels(made: Made) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The held-out images as the formats take them: (24, 3, 32, 32)."""
    held_out = load_index(made.data).held_out
    images = np.stack([decode(made.data / image.file, 32) for image in held_out])
    return images.astype(np.float32) / 255


def test_every_file_is_in_the_manifest(made: Made) -> None:
    rows = json.loads((made.out / "manifest.json").read_text())["files"]
    assert {row["name"]: row["media_type"] for row in rows} == FILES
    assert {path.name for path in made.out.iterdir()} == {*FILES, "manifest.json"}
    for row in rows:
        raw = (made.out / row["name"]).read_bytes()
        assert (row["bytes"], row["sha256"]) == (len(raw), sha256(raw).hexdigest())
    assert made.warnings == []


def test_no_file_names_this_machine_s_folders(made: Made) -> None:
    """Exporters note the source lines that nodes come from."""
    for path in made.out.iterdir():
        raw = path.read_bytes()
        assert b"site-packages" not in raw
        assert str(made.out.parent).encode() not in raw


def test_each_format_is_published_with_its_numbers(made: Made) -> None:
    exports = json.loads((made.out / "exports.json").read_text())
    assert exports == made.metrics["exports"]
    assert json.loads((made.out / "metrics.json").read_text()) == made.metrics
    assert list(exports["formats"]) == list(FORMATS)
    for name, row in exports["formats"].items():
        assert (row["file"], row["published"], row["reason"]) == (FORMATS[name], True, None)
        assert row["bytes"] == (made.out / row["file"]).stat().st_size
        assert row["images"] == 24
        assert row["latency"]["p50_ms"] <= row["latency"]["p95_ms"]
        assert (row["latency"]["batch"], row["latency"]["threads"]) == (1, 1)
        assert (row["latency"]["warmup"], row["latency"]["runs"]) == (10, 20)
        assert row["memory"]["peak_bytes"] >= row["memory"]["runtime_bytes"] > 2**24
    for name in ("onnx", "torch_export"):
        row = exports["formats"][name]
        assert (row["agreement"], row["accuracy_drop"]) == (1.0, 0.0)
        assert row["largest_logit_difference"] < 1e-4
        assert row["accuracy"] == exports["student"]["accuracy"] == made.metrics["accuracy"]
    assert exports["formats"]["int8"]["accuracy_drop"] <= 0.1
    assert exports["formats"]["int8"]["bytes"] < exports["formats"]["onnx"]["bytes"] / 2
    assert exports["student"]["latency"]["p50_ms"] > 0
    assert exports["limits"]["int8_max_drop"] == LENIENT.int8_max_drop
    assert exports["machine"]["cpu"]
    assert exports["machine"]["cores"] >= 1
    assert exports["machine"]["torch"] == torch.__version__.partition("+")[0]
    assert exports["machine"]["onnxruntime"] == onnxruntime.__version__


@pytest.mark.parametrize("file", ["model.onnx", "model.int8.onnx"])
@pytest.mark.parametrize("batch", [1, 2, 5, 24])
def test_onnx_takes_batches_of_any_size(made: Made, file: str, batch: int) -> None:
    session = onnxruntime.InferenceSession(made.out / file)
    (images,) = session.get_inputs()
    assert (images.name, images.type) == ("images", "tensor(float)")
    assert images.shape == ["batch", 3, 32, 32]
    assert [output.name for output in session.get_outputs()] == ["logits", "probabilities"]
    whole, _ = session.run(None, {"images": pixels(made)})
    logits, probabilities = session.run(None, {"images": pixels(made)[:batch]})
    assert logits.shape == probabilities.shape == (batch, 3)
    assert logits == pytest.approx(whole[:batch], abs=1e-5)
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("file", ["model.onnx", "model.int8.onnx"])
def test_onnx_says_what_it_is(made: Made, file: str) -> None:
    session = onnxruntime.InferenceSession(made.out / file)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == ["circle", "cross", "square"]
    assert float(facts["temperature"]) == made.metrics["evaluation"]["temperature"]
    preprocessing = json.loads(facts["preprocessing"])
    assert preprocessing["steps"][-1] == "divide by 255; channels first"
    assert preprocessing["input_size"] == [3, 32, 32]
    assert "mean" not in preprocessing


def test_all_formats_answer_as_the_student_does(made: Made) -> None:
    model = timm.create_model(f"local-dir:{made.out}", pretrained=True).eval()
    data = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(data[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    images = torch.from_numpy(pixels(made))
    with torch.no_grad():
        expected = model((images - mean) / std)
        logits, chances = torch.export.load(made.out / "model.pt2").module()(images)
    at = made.metrics["evaluation"]["temperature"]
    assert at != 1
    assert torch.allclose(logits, expected, atol=1e-5)
    assert torch.allclose(chances, (expected / at).softmax(1), atol=1e-5)
    session = onnxruntime.InferenceSession(made.out / "model.onnx")
    for got, wanted in zip(
        session.run(None, {"images": images.numpy()}), (logits, chances), strict=True
    ):
        assert torch.allclose(torch.from_numpy(got), wanted, atol=1e-5)


def test_the_evaluation_is_of_the_packaged_student(made: Made) -> None:
    found = json.loads((made.out / "evaluation.json").read_text())
    assert found["split"] == "test"
    assert (found["images"], found["accuracy"]) == (24, made.metrics["accuracy"])
    assert sum(map(sum, found["confusion"]["counts"])) == 24
    right = sum(row["right"] for row in found["per_class"])
    assert right / 24 == pytest.approx(found["accuracy"], abs=1e-6)
    assert len(found["worst"]) == 24 - right
    names = {image.source for image in load_index(made.data).held_out}
    assert {row["source"] for row in found["worst"]} <= names
    assert found["calibration"]["fitted_on"] == "two halves of the held-out images"
    assert made.metrics["evaluation"]["ece_after"] == found["calibration"]["ece_after"]


def test_the_card_tells_it(made: Made) -> None:
    card = (made.out / "README.md").read_text()
    at = made.metrics["evaluation"]["temperature"]
    words = " ".join(card.split())
    assert f"softmax of the logits over a temperature of {at:.4g}." in words
    assert "two halves, each judged" in words
    for file in FORMATS.values():
        assert f"`{file}`" in card
    assert made.metrics["exports"]["machine"]["cpu"] in card
    assert "its licence is apache-2.0, and may bind" in words
    assert "refused" not in card
