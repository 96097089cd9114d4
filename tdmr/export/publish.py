"""Which formats a bundle holds: each is written, loaded again, verified and measured, or refused.

A refused format costs nothing but itself: its row in exports.json has the numbers and the reason,
its file is gone, and the next one is tried.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.export import ExportedProgram

from tdmr.config import FORMATS, ExportOptions, Format
from tdmr.errors import Stopped, is_disk_full
from tdmr.export import formats, int8, verify
from tdmr.export.machine import machine
from tdmr.export.meter import MeasureError, Meter
from tdmr.export.verify import Reference, Run, compare, verdict
from tdmr.progress import Steps
from tdmr.trained import WEIGHTS
from tdmr.weights import first_line

FILES: dict[Format, str] = {
    "onnx": "model.onnx",
    "int8": "model.int8.onnx",
    "torch_export": "model.pt2",
}
NEEDS: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "int8": ("onnx", "onnxscript", "onnxruntime"),
    "torch_export": (),
}
OPENERS: dict[Format, Callable[[Path], Run]] = {
    "onnx": verify.open_onnx,
    "int8": verify.open_onnx,
    "torch_export": verify.open_program,
}
KINDS: dict[Format, str] = {"onnx": "onnx", "int8": "onnx", "torch_export": "program"}


class RefusedError(Exception):
    """A format that can't be made, for a reason that is no fault of its exporter's."""


@dataclass(frozen=True)
class Making:
    """What formats are made of, and where: files are made in `work`, and published to `out`.

    `facts` go into the metadata; `calibration` gives the batches that INT8 is calibrated on.
    """

    reference: Reference
    out: Path
    work: Path
    facts: dict[str, Any]
    calibration: Callable[[], Sequence[npt.NDArray[np.float32]]]
    options: ExportOptions

    @cached_property
    def program(self) -> ExportedProgram:
        """The student as a graph, which every format is made of."""
        return formats.capture(self.reference.classifier)

    def write(self, wanted: Format, path: Path) -> None:
        """Write one format. Raises whatever its exporter has against the student."""
        if missing := [name for name in NEEDS[wanted] if find_spec(name) is None]:
            names = " ".join(missing)
            raise RefusedError(f"it needs what isn't installed here: pip install {names}")
        if wanted == "torch_export":
            formats.write_program(self.program, path)
        elif wanted == "onnx":
            formats.write_onnx(self.program, path, self.facts)
        else:
            int8.quantise(self._onnx(), path, self.calibration(), self.facts)

    def _onnx(self) -> Path:
        """The ONNX file that INT8 is made of."""
        published = self.out / FILES["onnx"]
        if published.exists():
            return published
        if "onnx" in self.options.formats:
            raise RefusedError(f"it is made of {FILES['onnx']}, which was refused")
        source = self.work / FILES["onnx"]
        self.write("onnx", source)
        return source


def publish(making: Making, steps: Steps, warn: Callable[[str], None]) -> dict[str, Any]:
    """Make every format that was asked for: exports.json's content. Takes `steps_of` steps.

    `warn` is told of every refusal. Raises Stopped, and what a full disk raises.
    """
    for name in FILES.values():  # of an earlier packaging into the same folder
        (making.out / name).unlink(missing_ok=True)
    rows = {}
    with Meter() if asked(making.options) else nullcontext() as meter:
        steps.begin()
        student = _student(making, meter, warn)
        for wanted in asked(making.options):
            steps.begin()
            assert meter is not None
            rows[wanted] = _one(making, wanted, meter, steps.part, warn)
    return {
        "machine": machine(),
        "limits": making.options.model_dump(exclude={"formats", "latency_runs"}),
        "student": student,
        "formats": rows,
    }


def asked(options: ExportOptions) -> list[Format]:
    """The formats that were asked for, in the order in which they are made."""
    return [name for name in FORMATS if name in options.formats]


def steps_of(options: ExportOptions) -> int:
    """How many steps `publish` takes."""
    return len(asked(options)) + 1


def _one(
    making: Making,
    wanted: Format,
    meter: Meter,
    on_part: Callable[[int, int], None],
    warn: Callable[[str], None],
) -> dict[str, Any]:
    """One format's row; its file is in `out` if the row says that it is published."""
    name = FILES[wanted]
    path = making.work / name
    row: dict[str, Any] = {"file": name, "published": False, "reason": None, "bytes": None}
    try:
        making.write(wanted, path)
        row["bytes"] = path.stat().st_size
        found = compare(OPENERS[wanted](path), making.reference, on_part)
        row |= found.as_dict()
        row["reason"] = verdict(found, making.options, quantised=wanted == "int8")
        if row["reason"] is None:
            row |= _measured(making, meter, KINDS[wanted], path)
    except Stopped:
        raise
    except Exception as error:  # whatever an exporter raises refuses its format
        if is_disk_full(error):
            raise
        row["reason"] = _words(error, making)
    if row["reason"] is None:
        path.rename(making.out / name)
        row["published"] = True
    else:
        path.unlink(missing_ok=True)
        warn(f"{name} isn't in the bundle: {row['reason']}.")
    return row


def _student(making: Making, meter: Meter | None, warn: Callable[[str], None]) -> dict[str, Any]:
    """The PyTorch student's own row; measured where there is something to compare with it."""
    reference, path = making.reference, making.out / WEIGHTS
    right = reference.logits.argmax(axis=1) == reference.labels
    row = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "accuracy": round(float(right.mean()), 6),
        "latency": None,
        "memory": None,
    }
    try:
        if meter is not None:
            row |= _measured(making, meter, "timm", making.out)
    except MeasureError as error:
        warn(f"The student's latency couldn't be measured: {_words(error, making)}.")
    return row


def _measured(making: Making, meter: Meter, kind: str, path: Path) -> dict[str, Any]:
    classifier = making.reference.classifier
    return meter.measure(
        kind, path, classifier.channels, classifier.side, making.options.latency_runs
    )


def _words(error: Exception, making: Making) -> str:
    """Why, in a line that names no folder of this machine."""
    words = first_line(error)
    for folder in (making.work, making.out):
        words = words.replace(f"{folder}{os.sep}", "").replace(str(folder), folder.name)
    if not isinstance(error, RefusedError):
        words = f"{type(error).__name__}: {words}"
    return words.rstrip(".")
