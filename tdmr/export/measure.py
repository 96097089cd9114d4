"""Measures single images in a format: a process that has one runtime, and nothing else of ours.

    python -P measure.py (onnx | torch)

Every line that it reads is an order {kind, path, channels, side, runs}, where `kind` is onnx,
program (.pt2) or timm (a timm folder); it answers with a line, {latency, memory} or {error}.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 1  # what a small student on a shared machine gets, and what compares best
WARMUP, FEWEST = 10, 20
SECONDS = 5.0  # after which a slow format is measured no more, if it had FEWEST runs

Call = Callable[[Any], Any]


def serve(runtime: str) -> None:
    """Carry out the orders on standard input, until it ends."""
    IMPORTS[runtime]()
    for line in sys.stdin:
        print(json.dumps(attempt(json.loads(line))), flush=True)  # noqa: T201 - its answers


def attempt(order: dict[str, Any]) -> dict[str, Any]:
    """What `measure` finds, or the error that it ends with."""
    try:
        return measure(**order)
    except Exception as error:  # whatever a runtime raises is told by line
        return {"error": f"{type(error).__name__}: {error}"}


def measure(kind: str, path: str, channels: int, side: int, runs: int) -> dict[str, Any]:
    """Load, warm up, and time single images: milliseconds, and bytes of resident memory."""
    with suppress(OSError):  # where the kernel can't, an earlier order's peak may show
        Path("/proc/self/clear_refs").write_text("5")  # begin the peak again: proc(5)
    runtime = _resident("VmRSS")
    call = LOADERS[kind](path)
    images = np.random.default_rng(0).random((1, channels, side, side), dtype=np.float32)
    for _ in range(WARMUP):
        call(images)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < runs:
        start = time.perf_counter()
        call(images)
        times.append(1000 * (time.perf_counter() - start))
        if len(times) >= FEWEST and time.perf_counter() - began > SECONDS:
            break
    p50, p95 = np.percentile(times, [50, 95])
    return {
        "latency": {
            "p50_ms": round(float(p50), 4),
            "p95_ms": round(float(p95), 4),
            "batch": 1,
            "threads": THREADS,
            "warmup": WARMUP,
            "runs": len(times),
        },
        "memory": {"peak_bytes": _resident("VmHWM"), "runtime_bytes": runtime},
    }


def _onnx(path: str) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


def _program(path: str) -> Call:
    import torch

    return _in_torch(torch.export.load(path).module())


def _timm(path: str) -> Call:
    import timm

    return _in_torch(timm.create_model(f"local-dir:{path}", pretrained=True).eval())


def _in_torch(model: Callable[[Any], Any]) -> Call:
    import torch

    torch.set_num_threads(THREADS)

    def call(images: Any) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(images))

    return call


LOADERS: dict[str, Callable[[str], Call]] = {"onnx": _onnx, "program": _program, "timm": _timm}


def _import_onnx() -> None:
    import onnxruntime  # noqa: F401 - what it costs to load is measured


def _import_torch() -> None:
    import timm  # noqa: F401 - the same


IMPORTS = {"onnx": _import_onnx, "torch": _import_torch}


def _resident(field: str) -> int | None:
    """Bytes of this process's memory by the kernel's own account; None where it gives none."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    (line,) = [line for line in status.splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    serve(sys.argv[1])
