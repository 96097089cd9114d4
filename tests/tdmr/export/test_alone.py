"""The bundle works with this project absent: each script in an environment of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image, ImageOps

from tests.shapes import draw
from tests.tdmr.export.alone import closure, environment
from tests.tdmr.export.conftest import Made


@pytest.fixture(scope="session")
def bundle(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, as somebody who downloads it has it."""
    folder = tmp_path_factory.mktemp("download") / "student"
    shutil.copytree(made.out, folder)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Square, wide, tall, of odd sides, turned by EXIF, in palette and in grey."""
    folder = tmp_path_factory.mktemp("pictures")
    made: list[Path] = []

    def keep(image: Image.Image, name: str, **options: object) -> None:
        made.append(folder / name)
        image.save(made[-1], **options)

    keep(draw("circle", 501), "square.png")
    keep(draw("cross", 502, 97).crop((0, 10, 97, 71)), "wide.png")
    keep(draw("square", 503, 131).crop((20, 0, 96, 131)), "tall.jpg", quality=90)
    keep(draw("circle", 504, 33).resize((33, 201)), "thin.webp", lossless=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    keep(draw("cross", 505, 80).crop((0, 0, 80, 50)), "turned.jpg", exif=turned)
    keep(draw("square", 506, 64).quantize(16), "palette.png")
    keep(draw("circle", 507, 64).convert("L"), "grey.png")
    return made


def run(python: Path, script: Path, *arguments: str) -> str:
    command = [str(python), "-I", "-W", "ignore", str(script), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=script.parent)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def missing(python: Path, names: Sequence[str]) -> None:
    """Those modules can't be imported there."""
    for name in names:
        ran = subprocess.run([str(python), "-I", "-c", f"import {name}"], capture_output=True)
        assert ran.returncode == 1
        assert b"ModuleNotFoundError" in ran.stderr


def expected(bundle: Path, picture: Path) -> dict[str, float]:
    """The student's own calibrated probabilities, by timm's own transform."""
    model = timm.create_model(f"local-dir:{bundle}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    image = ImageOps.exif_transpose(Image.open(picture)).convert("RGB")
    at = json.loads((bundle / "metrics.json").read_text())["evaluation"]["temperature"]
    with torch.inference_mode():
        chances = (model(transform(image).unsqueeze(0))[0] / at).softmax(0).tolist()
    classes = json.loads((bundle / "classes.json").read_text())
    return dict(zip(classes, chances, strict=True))


def agrees(printed: str, wanted: dict[str, float], within: float) -> None:
    found = json.loads(printed)
    assert next(iter(found)) == max(wanted, key=wanted.__getitem__)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found == pytest.approx(wanted, abs=within)


def test_with_onnxruntime_alone(bundle: Path, pictures: list[Path], tmp_path: Path) -> None:
    names = closure("onnxruntime", "numpy", "pillow")
    assert not {"torch", "timm", "tdmr", "onnx"} & {name.lower() for name in names}
    python = environment(tmp_path / "env", "onnxruntime", "numpy", "pillow")
    missing(python, ["tdmr", "torch", "timm", "onnx", "safetensors"])
    for picture in pictures:
        wanted = expected(bundle, picture)
        agrees(run(python, bundle / "predict_onnx.py", str(picture)), wanted, 1e-5)
    quantised = run(python, bundle / "predict_onnx.py", str(pictures[0]), "model.int8.onnx")
    assert json.loads(quantised) == pytest.approx(expected(bundle, pictures[0]), abs=0.2)


def test_with_timm_alone(bundle: Path, pictures: list[Path], tmp_path: Path) -> None:
    assert not {"tdmr", "onnx", "onnxruntime"} & {name.lower() for name in closure("timm")}
    python = environment(tmp_path / "env", "timm")
    missing(python, ["tdmr", "onnx", "onnxruntime", "pydantic"])
    for picture in (pictures[1], pictures[4]):
        printed = run(python, bundle / "predict_timm.py", str(picture))
        agrees(printed, expected(bundle, picture), 1e-5)
