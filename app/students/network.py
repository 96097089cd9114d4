"""A student in onnxruntime. It prepares and classifies an image as its bundle's own script does."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from app.students.sessions import Stop
from tdmr.data.pixels import square

MODES = {1: "L", 3: "RGB"}


class Network:
    """The content of an .onnx file of a bundle's; threads may share it.

    `classes` are in the order of its probabilities, which are the softmax over `temperature`.
    """

    def __init__(self, content: bytes, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors alone
        options.enable_cpu_mem_arena = False  # or each session keeps what its largest run took
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        facts = self._session.get_modelmeta().custom_metadata_map
        self.classes: list[str] = json.loads(facts["classes"])
        self.temperature = float(facts["temperature"])
        _, self._channels, self._side, _ = self._session.get_inputs()[0].shape

    def classify(self, image: Image.Image, stop: Stop) -> npt.NDArray[np.float32]:
        """The probabilities of an upright RGB image: (classes,). Raises StoppedError."""
        prepared = square(image.convert(MODES[self._channels]), self._side)
        shape = (1, self._side, self._side, self._channels)
        pixels = np.asarray(prepared, dtype=np.float32).reshape(shape).transpose(0, 3, 1, 2)
        options = onnxruntime.RunOptions()
        options.log_severity_level = 3
        stop.reach(options)
        try:
            (found,) = self._session.run(["probabilities"], {"images": pixels / 255}, options)
        except Exception:  # of onnxruntime, whose error for a stop has no type
            stop.check()
            raise
        probabilities: npt.NDArray[np.float32] = found[0]
        return probabilities
