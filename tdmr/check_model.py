"""The check of an uploaded foundation, a process of its own: `python -m tdmr check-model JOB_DIR`.

It reads JOB_DIR/config.json (`tdmr.own.CheckOptions`) and the model in JOB_DIR/models, and writes
out/report.json (`tdmr.own.Report`). Weights that don't fit are a result, not a failure.
"""

from __future__ import annotations

from pathlib import Path

from tdmr import limits, own
from tdmr.api import load_recipe
from tdmr.config import ReprogramOptions
from tdmr.errors import Failure, TdmrError, is_out_of_memory
from tdmr.jobdir import JobDir, Reporter
from tdmr.own import CheckOptions, Report
from tdmr.wire.datasets import Finding

STAGE = "check"


def check_model(path: Path) -> int:
    """Check the model in JOB_DIR `path`; 0 unless the check itself came to a bad end."""
    job = JobDir(path)
    reporter = Reporter(job, [STAGE])
    options = CheckOptions.model_validate_json(job.config.read_bytes())
    reporter.start(STAGE)
    try:
        _load()
        memory = options.memory_bytes
        if memory is not None:  # beside the libraries, whose own share nobody knows beforehand
            memory += limits.address_space()
        limits.hold(memory, options.cpu_seconds)
        with own.offered(job.models):
            report = examine(options.model)
    except limits.OutOfTime:
        reporter.failed(_ended("check_time", "It took too long."))
        return 1
    except Exception as error:  # a lack of memory has many types
        if not is_out_of_memory(error):
            raise
        reporter.failed(_ended("check_memory", "It needed too much memory."))
        return 1
    job.out.mkdir(exist_ok=True)
    (job.out / own.REPORT).write_text(report.model_dump_json(), encoding="utf-8")
    reporter.done({"ok": report.ok})
    return 0


def examine(name: str) -> Report:
    """Load the foundation `name` as a job does, and show it a picture."""
    import torch

    from tdmr.models import load_foundation

    taps = ReprogramOptions().taps
    try:
        found = load_foundation(name, None, taps, torch.device("cpu"))
    except TdmrError as error:
        return Report(findings=[_finding(error)])
    return Report(
        params=found.parameters,
        input_size=found.size,
        channels=found.channels,
        fingerprint=found.weights_hash(),
    )


def _load() -> None:
    """Load torch, for one thread: pictures are soon seen, and each more takes address space."""
    load_recipe()
    import torch

    torch.set_num_threads(1)


def _finding(error: TdmrError) -> Finding:
    advice = error.suggestion or "Upload weights that fit."
    return Finding(code=error.code, severity="error", detail=error.detail, advice=advice)


def _ended(code: str, detail: str) -> Failure:
    return Failure(
        code=code,
        user_error=True,
        stage=STAGE,
        detail=f"The check of the weights was ended. {detail}",
        suggestion="Upload a smaller model.",
    )
