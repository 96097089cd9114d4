"""Every family of foundation teaches every family of student, through both stages."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

import tdmr
from tdmr.config import (
    DistillOptions,
    DistilOptions,
    ExportOptions,
    ReprogramOptions,
    TrainingOptions,
    ViewOptions,
)
from tdmr.data.index import load_index
from tdmr.jobdir import ProgressLine, Reporter
from tdmr.models import load_foundation


@dataclass(frozen=True)
class Side:
    """A timm architecture, the side of its images in pixels, and how they are normalised."""

    architecture: str
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
FOUNDATIONS = {
    "cnn": Side("test_resnet", 48, *IMAGENET),
    "transformer": Side("test_vit", 64, *HALVES),
    "hybrid": Side("test_maxvit", 64, (0.4, 0.4, 0.4), (0.3, 0.2, 0.3)),
}
# The sizes differ from the foundations', and the means and deviations from some of them.
STUDENTS = {
    "cnn": Side("test_efficientnet", 32, *IMAGENET),
    "transformer": Side("test_vit2", 48, *HALVES),
    "hybrid": Side("test_coatnet", 32, *HALVES),
}
FLAT = DistilOptions(depth="flat", width="flat", objective="flat")  # one loss from first to last
REUSED = FLAT.model_copy(update={"head": "reused"})


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Side], Path]:
    """A timm folder with seeded random weights."""

    def make(side: Side) -> Path:
        folder = tmp_path_factory.mktemp(side.architecture)
        torch.manual_seed(11)
        fixed = timm.models.get_pretrained_cfg(side.architecture).fixed_input_size
        model = timm.create_model(side.architecture, **({"img_size": side.size} if fixed else {}))
        data = {
            "input_size": (3, side.size, side.size),
            "mean": side.mean,
            "std": side.std,
        }
        save_for_hf(model, str(folder), data_config=data, safe_serialization=True)
        return folder

    return make


@pytest.mark.parametrize(
    ("foundation", "student", "distil"),
    [
        *((foundation, student, FLAT) for foundation in FOUNDATIONS for student in STUDENTS),
        *((family, family, REUSED) for family in STUDENTS),
    ],
)
def test_both_stages_learn(
    foundation: str,
    student: str,
    distil: DistilOptions,
    folder_of: Callable[[Side], Path],
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher, pupil = FOUNDATIONS[foundation], STUDENTS[student]
    folder = folder_of(teacher)
    name = f"local-dir:{folder}"
    file = (folder / "model.safetensors").read_bytes()
    before = load_foundation(name, None, 4, torch.device("cpu"))
    assert before.size == teacher.size

    monkeypatch.setattr(Reporter.__init__, "__defaults__", (0.0,))
    losses: dict[str, list[float]] = defaultdict(list)

    def listen(line: ProgressLine) -> None:
        if line.stage and line.losses:
            losses[line.stage.name].append(line.losses["loss"])

    result = tdmr.distill(
        shapes,
        foundation=name,
        student=pupil.architecture,
        out=tmp_path / "out",
        options=DistillOptions(
            image_size=pupil.size,
            views=ViewOptions(count=2),
            reprogram=ReprogramOptions(mode="trained", proxy_dim=16, steps=30, batch_size=18),
            distil=distil,
            training=TrainingOptions(steps=40, batch_size=9, warmup=0.0),
            exports=ExportOptions(formats=()),
        ),
        baselines=(),
        device="cpu",
        on_progress=listen,
    )
    for stage in ("reprogram", "distil"):
        told = losses[stage]
        assert mean(told[-2:]) < mean(told[:2]), (stage, told)
    assert result.metrics["foundation"]["sha256"] == before.weights_hash()
    assert sha256((folder / "model.safetensors").read_bytes()).digest() == sha256(file).digest()
    _loads_in_plain_timm(result, pupil, shapes)


def _loads_in_plain_timm(result: tdmr.Distilled, pupil: Side, shapes: Path) -> None:
    """As its own architecture, size and normalisation, and as accurate as it is said to be."""
    config: dict[str, Any] = json.loads((result.bundle / "config.json").read_text())
    assert config["architecture"] == pupil.architecture
    model = timm.create_model(f"local-dir:{result.bundle}", pretrained=True).eval()
    data = timm.data.resolve_model_data_config(model)
    assert data["input_size"] == (3, pupil.size, pupil.size)
    assert (tuple(data["mean"]), tuple(data["std"])) == (pupil.mean, pupil.std)
    transform = timm.data.create_transform(**data)
    classes = result.metrics["dataset"]["classes"]
    held_out = load_index(shapes).held_out
    batch = torch.stack([transform(Image.open(shapes / i.file).convert("RGB")) for i in held_out])
    with torch.inference_mode():
        predicted = model(batch).argmax(dim=1).tolist()
    right = sum(classes[p] == i.label for p, i in zip(predicted, held_out, strict=True))
    assert right / len(held_out) == pytest.approx(result.accuracy, abs=1e-6)
