"""How fast an architecture is as a student, before anybody has trained one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tdmr.export import formats
from tdmr.export.classifier import Classifier
from tdmr.export.machine import machine
from tdmr.export.meter import Meter
from tdmr.models import make_student

CLASSES = 10
SEED = 0


def measure(model: str, size: int, runs: int) -> dict[str, Any]:
    """Export an untrained student for images of `size` pixels, and time single ones through it.

    Its weights are random: what they are doesn't change how long they take. Gives `model`,
    `input_size`, `params`, `classes`, `bytes` of the ONNX file, `latency`, `memory` and `machine`
    as exports.json does. Raises OptionsError for a size that the architecture can't take, and
    whatever its exporter has against it.
    """
    student = make_student(model, size, 1, CLASSES, pretrained=False, seed=SEED)
    student.model.pretrained_cfg["input_size"] = (student.channels, size, size)
    classifier = Classifier(student.model, model)
    with tempfile.TemporaryDirectory(prefix="tdmr-latency-") as folder, Meter() as meter:
        path = Path(folder) / "model.onnx"
        formats.write_onnx(formats.capture(classifier), path, {})
        return {
            "model": model,
            "input_size": size,
            "classes": CLASSES,
            "params": sum(p.numel() for p in student.model.parameters()),
            "bytes": path.stat().st_size,
            **meter.measure("onnx", path, classifier.channels, size, runs),
            "machine": machine(),
        }
