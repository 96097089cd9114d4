"""A real worker whose jobs' processes are stand-ins: `python -m tests.worker.standin_worker`."""

from __future__ import annotations

import sys

from app.settings import Settings
from tdmr.jobdir import JobDir
from worker.cli import serve
from worker.launch import Child


def standin(command: list[str], job: JobDir) -> Child:
    """Start the stand-in instead of `python -m tdmr VERB JOB_DIR ...`; a check is a real one."""
    if command[2] != "tdmr":
        return Child(command, job)
    return Child([sys.executable, "-m", "tests.worker.standin", command[3], str(job.path)], job)


if __name__ == "__main__":
    serve(Settings(), celery="--celery" in sys.argv, once="--once" in sys.argv, launch=standin)
