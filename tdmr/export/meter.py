"""Has formats measured: orders to processes that have one runtime each (`tdmr.export.measure`)."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("measure.py")
PATIENCE = 600.0  # seconds for one file


class MeasureError(Exception):
    """A file couldn't be measured; these are the process's own words."""


class Meter:
    """A context manager, at whose end its processes have ended.

    That of torch starts at once, because it takes seconds to load, while files are being made; it
    measures one file after the other. Those of onnxruntime are quick, and measure one file each.
    """

    def __init__(self) -> None:
        self._files = ExitStack()

    def __enter__(self) -> Meter:
        self._torch = self._start("torch")
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def measure(self, kind: str, path: Path, channels: int, side: int, runs: int) -> dict[str, Any]:
        """`latency` and `memory` of single images through a file. Raises MeasureError."""
        order = {"kind": kind, "path": str(path), "channels": channels, "side": side, "runs": runs}
        if kind == "onnx":
            return self._start("onnx").answer(order)
        return self._torch.answer(order)

    def _start(self, runtime: str) -> _Process:
        return self._files.enter_context(_Process(runtime))


class _Process:
    """One process of `tdmr.export.measure`, killed at the end of the block."""

    def __init__(self, runtime: str) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(  # noqa: S603 - the command is ours
            [sys.executable, "-P", str(PROGRAM), runtime],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with suppress(BrokenPipeError):  # an order that it never read
            self._process.communicate()
        self._errors.close()

    def answer(self, order: dict[str, Any]) -> dict[str, Any]:
        """What the process answers. Raises MeasureError."""
        writing, reading = self._process.stdin, self._process.stdout
        assert writing is not None
        assert reading is not None
        said = ""
        with suppress(BrokenPipeError):
            writing.write(json.dumps(order) + "\n")
            writing.flush()
            if select.select([reading], [], [], PATIENCE)[0]:
                said = reading.readline()
        if not said:
            raise MeasureError(f"nothing was heard of its process: {self._last_words()}")
        answer: dict[str, Any] = json.loads(said)
        if "error" in answer:
            raise MeasureError(answer["error"])
        return answer

    def _last_words(self) -> str:
        self._process.kill()
        status = self._process.wait()
        self._errors.seek(0)
        errors = self._errors.read().strip().splitlines()
        return errors[-1] if errors else f"exit status {status}"
