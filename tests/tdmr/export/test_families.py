"""Students of every family, of other sizes and of one channel, in the formats of other runtimes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from PIL import Image

from tdmr import bundle, trained
from tdmr.config import ExportOptions, JobSpec
from tdmr.data.index import load_index
from tdmr.models import Student, make_student
from tdmr.weights import TimmModel
from tests.tdmr.export.conftest import Made

OPTIONS = ExportOptions(formats=("onnx", "torch_export"), latency_runs=20)


def untrained(student: Student, made: Made, folder: Path) -> Path:
    """What a training of `student` would leave, but for the training."""
    before = trained.read(made.trained)
    options = before.spec.options.model_copy(update={"exports": OPTIONS})
    spec = JobSpec(foundation=before.spec.foundation, student=student.name, options=options)
    exported = trained.export(student, folder, before.student.classes)
    trained.complete(folder, exported, spec, before.metrics)
    return folder


@pytest.mark.parametrize(
    ("name", "size"),
    [("test_vit", 48), ("test_coatnet", 32), ("test_efficientnet", 40)],
)
def test_each_family_is_exported(name: str, size: int, made: Made, tmp_path: Path) -> None:
    student = make_student(name, size, 4, 3, pretrained=False, seed=1)
    folder = untrained(student, made, tmp_path / "trained")
    out = tmp_path / "bundle"
    metrics = bundle.package(folder, out, data=made.data, cache=tmp_path / "cache")
    for row in metrics["exports"]["formats"].values():
        assert row["reason"] is None
        assert row["agreement"] == 1.0
        assert row["largest_logit_difference"] < 1e-4
    shape = onnxruntime.InferenceSession(out / "model.onnx").get_inputs()[0].shape
    assert shape == ["batch", 3, size, size]


def grey_student() -> Student:
    torch.manual_seed(3)
    model: TimmModel = timm.create_model("test_resnet", in_chans=1, num_classes=3)
    model.pretrained_cfg.update(input_size=(1, 32, 32), mean=(0.4,), std=(0.3,))
    return Student(model.eval(), "test_resnet", 32, 4)


def test_a_student_of_one_channel(made: Made, tmp_path: Path) -> None:
    """Both scripts make a colour picture grey, and agree."""
    folder = untrained(grey_student(), made, tmp_path / "trained")
    out = tmp_path / "bundle"
    metrics = bundle.package(folder, out, data=made.data, cache=tmp_path / "cache")
    assert metrics["exports"]["formats"]["onnx"]["published"] is True
    assert onnxruntime.InferenceSession(out / "model.onnx").get_inputs()[0].shape[1] == 1
    image = made.data / load_index(made.data).held_out[0].file
    wide = tmp_path / "wide.png"
    Image.open(image).resize((90, 50)).save(wide)
    answers = []
    for script in ("predict_timm.py", "predict_onnx.py"):
        command = [sys.executable, str(out / script), str(wide)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        answers.append(json.loads(ran.stdout))
    assert list(answers[0]) == list(answers[1])
    assert answers[0] == pytest.approx(answers[1], abs=1e-5)


class Stubborn(torch.nn.Module):
    """An architecture whose path depends on what it sees: no graph can hold it."""

    def __init__(self, model: TimmModel) -> None:
        super().__init__()
        self.model = model
        self.pretrained_cfg = model.pretrained_cfg

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(images)
        return found if float(images.mean()) > 0 else found.flip(0)


def test_what_cannot_be_captured_is_refused_with_the_reason(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tdmr.export import classifier

    load = classifier.load

    def stubborn(folder: Path) -> classifier.Classifier:
        return classifier.Classifier(Stubborn(load(folder).model), "stubborn")

    monkeypatch.setattr(classifier, "load", stubborn)
    warned: list[str] = []
    metrics = bundle.package(
        made.trained, tmp_path / "out", data=made.data, cache=made.cache, warn=warned.append
    )
    assert len(warned) == 3
    rows = metrics["exports"]["formats"]
    assert "data-dependent" in rows["torch_export"]["reason"]
    assert "data-dependent" in rows["onnx"]["reason"]
    assert "model.onnx" in rows["int8"]["reason"]
    assert (tmp_path / "out" / "manifest.json").exists()
    assert np.isfinite(metrics["evaluation"]["nll_after"])
