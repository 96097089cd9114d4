"""Jobs in a JOB_DIR, run in this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdmr import process
from tdmr.config import JobSpec
from tdmr.errors import Failure
from tdmr.jobdir import JobDir, ProgressLine


@dataclass(frozen=True)
class Ended:
    """How a job ended: its exit status, and every line of its progress."""

    job: JobDir
    status: int
    lines: list[ProgressLine]

    @property
    def failure(self) -> Failure:
        assert self.status == 1
        assert self.lines[-1].failure is not None
        return self.lines[-1].failure

    @property
    def warnings(self) -> list[str]:
        return [line.message or "" for line in self.lines if line.event == "warning"]


@dataclass(frozen=True)
class Jobs:
    """Runs jobs like `spec`, without baselines, below `folder`; they share a cache."""

    spec: JobSpec
    data: Path
    folder: Path

    def make(self, name: str = "job", **changes: Any) -> JobDir:
        """A JOB_DIR, or one that is there with other options; `changes` are to the JobSpec."""
        job = JobDir(self.folder / name)
        job.path.mkdir(exist_ok=True)
        if not job.data.exists():
            job.data.symlink_to(changes.pop("data", self.data))
        spec = self.spec.model_copy(update={"baselines": (), **changes})
        job.config.write_text(spec.model_dump_json())
        return job

    def run(self, name: str = "job", *, cache: Path | None = None, **changes: Any) -> Ended:
        """Run a job that makes a checkpoint after every step."""
        job = self.make(name, **changes)
        status = process.run_job(
            job.path, device="cpu", cache=cache or self.folder / "cache", checkpoint_seconds=0
        )
        return Ended(job, status, [line for _, line in job.read()])
