"""Measuring in processes of their own, and what becomes of it when they end badly."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tdmr.export.machine import machine, version
from tdmr.export.meter import MeasureError, Meter
from tests.tdmr.export.conftest import Made


def test_what_a_process_says_of_a_file_that_it_can_t_load(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with Meter() as meter, pytest.raises(MeasureError, match="InvalidProtobuf: "):
        meter.measure("onnx", tmp_path / "model.onnx", 3, 32, 20)


def test_a_process_that_dies(made: Made) -> None:
    with Meter() as meter:
        os.kill(meter._torch._process.pid, signal.SIGKILL)
        meter._torch._process.wait()
        with pytest.raises(MeasureError, match="nothing was heard of its process: exit status -9"):
            meter.measure("program", made.out / "model.pt2", 3, 32, 20)
        found = meter.measure("onnx", made.out / "model.onnx", 3, 32, 20)
    assert found["latency"]["runs"] == 20


def test_none_is_left(made: Made) -> None:
    with Meter() as meter:
        process = meter._torch._process
        assert process.poll() is None
    assert process.poll() == -signal.SIGKILL


def test_the_machine_is_named() -> None:
    found = machine()
    assert list(found) == [
        "cpu", "cores", "system", "python", "torch", "timm", "onnx", "onnxruntime", "load",
    ]  # fmt: skip
    assert found["cpu"]
    assert version("a-package-that-nobody-made") is None
