"""A student that has learnt something, and its bundle in every format: made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tdmr import bundle, process
from tdmr.config import ExportOptions, JobSpec, TrainingOptions
from tdmr.jobdir import JobDir

# 24 images are held out: one of them is 4 % of the accuracy.
LENIENT = ExportOptions(int8_max_drop=0.1, latency_runs=20, calibration_images=12)


@dataclass(frozen=True)
class Made:
    """What was trained on `data`, and its bundle in `out`, whose packaging warned of `warnings`."""

    trained: Path
    data: Path
    cache: Path
    out: Path
    metrics: dict[str, Any]
    warnings: list[str]


def train(spec: JobSpec, data: Path, folder: Path) -> Path:
    """A job that was trained and not packaged: its out/."""
    job = JobDir(folder / "job")
    job.path.mkdir()
    job.data.symlink_to(data)
    job.config.write_text(spec.model_dump_json())
    status = process.run_job(job.path, device="cpu", cache=folder / "cache", package=False)
    assert status == 0
    return job.out


def learning(spec: JobSpec, **changes: Any) -> JobSpec:
    """A job long enough for the student to tell shapes apart, and to be sure of it."""
    changes = {"training": TrainingOptions(steps=60, batch_size=12), "exports": LENIENT, **changes}
    options = spec.options.model_copy(update=changes)
    return spec.model_copy(update={"options": options, "baselines": ()})


@pytest.fixture(scope="session")
def made(spec: JobSpec, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    trained = train(learning(spec), shapes, folder)
    warnings: list[str] = []
    out, cache = folder / "bundle", folder / "cache"
    metrics = bundle.package(trained, out, data=shapes, cache=cache, warn=warnings.append)
    return Made(trained, shapes, cache, out, metrics, warnings)
