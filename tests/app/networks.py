"""Real students in ONNX: tiny, untrained, seeded, exported as a bundle's are."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tdmr.bundle import ASSETS, ONNX_SCRIPT
from tests.app.service import BUNDLE, METRICS

CLASSES = ["circle", "cross", "square"]
TEMPERATURE = 0.25
SIDE = 32


class Networks:
    """Makes each of them once; loads torch for that."""

    @cache  # noqa: B019 - one for a session
    def onnx(self, seed: int = 0, channels: int = 3) -> bytes:
        """The content of model.onnx."""
        import timm
        import torch

        from tdmr.export import formats
        from tdmr.export.classifier import Classifier

        torch.manual_seed(seed)
        data = {"input_size": (channels, SIDE, SIDE)}
        model = timm.create_model(
            "test_resnet", num_classes=3, in_chans=channels, pretrained_cfg_overlay=data
        )
        facts = {"classes": CLASSES, "temperature": str(TEMPERATURE)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            classifier = Classifier(model, "the student", TEMPERATURE)
            formats.write_onnx(formats.capture(classifier), path, facts)
            return path.read_bytes()

    def bundle(self, **which: int) -> tuple[dict[str, bytes], dict[str, Any]]:
        """A bundle's files and metrics, for `Service.student`."""
        return {**BUNDLE, "model.onnx": self.onnx(**which)}, exported("model.onnx")


def endless() -> bytes:
    """A network that never comes to an end: a loop of 2^62 additions."""
    from onnx import TensorProto, checker, helper

    value, bools = helper.make_tensor_value_info, TensorProto.BOOL
    floats, ints = TensorProto.FLOAT, TensorProto.INT64
    body = helper.make_graph(
        [
            helper.make_node("Add", ["sum_in", "sum_in"], ["sum_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [value("turn", ints, []), value("go_in", bools, []), value("sum_in", floats, [1, 2])],
        [value("go_out", bools, []), value("sum_out", floats, [1, 2])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["turns", "go", "zero"], ["probabilities"], body=body)],
        "endless",
        [value("images", floats, ["batch", 1, 8, 8])],
        [value("probabilities", floats, [1, 2])],
        [
            helper.make_tensor("turns", ints, [], [2**62]),
            helper.make_tensor("go", bools, [], [True]),
            helper.make_tensor("zero", floats, [1, 2], [0.0, 0.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"classes": json.dumps(["a", "b"]), "temperature": "1.0"})
    checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def exported(*published: str, refused: dict[str, str] | None = None) -> dict[str, Any]:
    """Metrics that say which files were published, and why others weren't."""
    names = {"model.onnx": "onnx", "model.int8.onnx": "int8"}
    rows = {names[file]: {"file": file, "published": True, "reason": None} for file in published}
    for file, reason in (refused or {}).items():
        rows[names[file]] = {"file": file, "published": False, "reason": reason}
    return {**METRICS, "exports": {"formats": rows}}


def by_script(content: bytes, image: Path, folder: Path) -> dict[str, float]:
    """What the bundle's own script says of an image."""
    (folder / "model.onnx").write_bytes(content)
    script = folder / ONNX_SCRIPT
    script.write_text((ASSETS / ONNX_SCRIPT).read_text())
    command = [sys.executable, "-I", "-W", "ignore", str(script), str(image)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(ran.stdout)
    return found
