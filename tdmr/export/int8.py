"""Static INT8 quantisation of an ONNX file by onnxruntime, calibrated on training images.

Convolutions and matrix products get quantised inputs, weights and outputs (QDQ); normalisation,
softmax and what lies between stay float. Weights take 7 bits: on x86 processors without VNNI the
sums of 8-bit products saturate, and a verdict would hold on machines like this one alone.
"""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tdmr.data.index import IndexedImage
from tdmr.export.classifier import INPUT
from tdmr.export.formats import describe

OPERATORS = ["Conv", "Gemm", "MatMul"]


def sample(images: Sequence[IndexedImage], most: int, seed: int) -> list[IndexedImage]:
    """At most `most` images, the same for the same seed, whatever their order."""
    ordered = sorted(images, key=lambda image: (image.sha256, image.file))
    return random.Random(seed).sample(ordered, min(most, len(ordered)))


def quantise(
    source: Path,
    target: Path,
    batches: Sequence[npt.NDArray[np.float32]],
    facts: dict[str, Any],
) -> None:
    """Write `source` as INT8 to `target`; activations range as they do on `batches`.

    Each batch is what the model takes. Raises ImportError without onnxruntime.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".int8-") as folder, _quietly():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared))
        quantize_static(
            str(prepared),
            str(target),
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=OPERATORS,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"CalibMaxIntermediateOutputs": 8},
        )
    model = onnx.load(target)
    describe(model, facts)
    onnx.save_model(model, target)


class _Reader:
    """Feeds batches to a calibrator, once."""

    def __init__(self, batches: Sequence[npt.NDArray[np.float32]]) -> None:
        self._left: Iterator[npt.NDArray[np.float32]] = iter(batches)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """The next batch; None behind the last."""
        batch = next(self._left, None)
        return None if batch is None else {INPUT: batch}


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the quantiser's advice, which it logs at the root."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
