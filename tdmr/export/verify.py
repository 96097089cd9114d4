"""Whether a file is the student: it is loaded again, and asked about every held-out image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tdmr.config import ExportOptions
from tdmr.data.pixels import Pixels
from tdmr.evaluation.figures import softmax
from tdmr.export.classifier import BATCH, INPUT, OUTPUTS, Classifier

Floats = npt.NDArray[np.float32]
Run = Callable[[Floats], tuple[Floats, Floats]]

OTHER_BATCHES = (1, 3)  # sizes that the first few images are given in, beside the usual batches
FEW = 7  # images
SOFTMAX_ERROR = 1e-4  # largest distance of probabilities from those of the file's own logits


@dataclass(frozen=True)
class Reference:
    """The student that a file must be: its logits (n, classes) on pixels (n, 3, side, side)."""

    classifier: Classifier
    pixels: Pixels
    labels: npt.NDArray[np.int64]
    logits: Floats


@dataclass(frozen=True)
class Comparison:
    """How a file's answers differ from the student's, over all images and all batch sizes.

    `accuracy_drop` is the student's accuracy minus the file's; `softmax_error` how far its
    probabilities are from the softmax of its own logits over the temperature.
    """

    images: int
    agreement: float
    largest_logit_difference: float
    accuracy: float
    accuracy_drop: float
    softmax_error: float

    def as_dict(self) -> dict[str, Any]:
        """As exports.json holds it; None is a distance of something that isn't a number."""
        return {
            "images": self.images,
            "agreement": round(self.agreement, 6),
            "largest_logit_difference": _shown(self.largest_logit_difference),
            "accuracy": round(self.accuracy, 6),
            "accuracy_drop": round(self.accuracy_drop, 6),
            "softmax_error": _shown(self.softmax_error),
        }


def open_onnx(path: Path) -> Run:
    """An .onnx file in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Floats) -> tuple[Floats, Floats]:
        logits, probabilities = session.run(list(OUTPUTS), {INPUT: images})
        return logits, probabilities

    return run


def open_program(path: Path) -> Run:
    """A .pt2 file in torch."""
    module = torch.export.load(path).module()

    def run(images: Floats) -> tuple[Floats, Floats]:
        with torch.no_grad():
            logits, probabilities = module(torch.from_numpy(images))
        return logits.numpy(), probabilities.numpy()

    return run


def compare(
    run: Run,
    reference: Reference,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Ask about all held-out images in batches, and about the first few in batches of other sizes.

    Raises whatever the runtime has against a file or a batch.
    """
    logits, softmax_error = _answers(run, reference, reference.pixels, BATCH, on_batch)
    farthest = _distance(logits, reference.logits)
    few = reference.pixels[:FEW]
    for size in OTHER_BATCHES:
        again, error = _answers(run, reference, few, size)
        farthest = max(farthest, _distance(again, reference.logits[: len(few)]))
        softmax_error = max(softmax_error, error)
    predicted, expected = logits.argmax(axis=1), reference.logits.argmax(axis=1)
    right, was_right = (int((p == reference.labels).sum()) for p in (predicted, expected))
    count = len(reference.labels)
    return Comparison(
        images=count,
        agreement=float((predicted == expected).mean()),
        largest_logit_difference=farthest,
        accuracy=right / count,
        accuracy_drop=(was_right - right) / count,
        softmax_error=softmax_error,
    )


def _answers(
    run: Run,
    reference: Reference,
    pixels: Pixels,
    size: int,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Floats, float]:
    """Logits (n, classes), and how far the probabilities beside them are from their softmax."""
    found, error, done = [], 0.0, 0
    temperature = reference.classifier.temperature
    for images in reference.classifier.inputs(pixels, size):
        logits, probabilities = run(images.numpy())
        expected = softmax(logits.astype(np.float64), temperature)
        error = max(error, _distance(probabilities, expected))
        found.append(logits)
        done += len(logits)
        on_batch(done, len(pixels))
    return np.concatenate(found), error


def _distance(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """The largest difference; infinite where either has anything but numbers."""
    if a.shape != b.shape:
        raise ValueError(f"it answers with {a.shape} instead of {b.shape}")
    farthest = float(np.abs(a.astype(np.float64) - b).max())
    return farthest if np.isfinite(farthest) else float("inf")


def _shown(distance: float) -> float | None:
    return float(f"{distance:.3g}") if np.isfinite(distance) else None


def verdict(found: Comparison, options: ExportOptions, *, quantised: bool) -> str | None:
    """Why a file isn't published; None if it is. Each limit may be reached, and not passed."""
    faults = []
    least = options.int8_min_agreement if quantised else options.min_agreement
    if found.agreement < least:
        faults.append(f"it agrees on {found.agreement:.4f} of the images, less than {least:g}")
    if quantised and found.accuracy_drop > options.int8_max_drop + 1e-9:
        faults.append(
            f"its accuracy is {found.accuracy_drop:.4f} below the student's, more than "
            f"{options.int8_max_drop:g}"
        )
    if not quantised and not found.largest_logit_difference <= options.max_logit_difference:
        faults.append(
            f"a logit differs by {found.largest_logit_difference:.3g}, more than "
            f"{options.max_logit_difference:g}"
        )
    if not found.softmax_error <= SOFTMAX_ERROR:
        faults.append(
            f"a probability is {found.softmax_error:.3g} off the softmax of the logits, more than "
            f"{SOFTMAX_ERROR:g}"
        )
    return "; ".join(faults) or None
