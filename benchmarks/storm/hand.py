"""A worker of the storm: the product's own, with stand-ins for trainings and a witness beside.

`python -m benchmarks.storm.hand [--celery] [--queue NAME]`, or forked by `benchmarks.storm.zygote`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from app.settings import Settings
from benchmarks.storm import guards, standin, witness
from tdmr.jobdir import JobDir
from worker.cli import serve
from worker.launch import Child

PYTHON = (sys.executable, "-S", "-E")  # no site-packages: it starts in no time


def launch(command: list[str], job: JobDir) -> Child:
    """Start the command of a job that really trains, and a stand-in for any other."""
    if plays(job):
        verb = command[command.index(str(job.path)) - 1]
        command = [*PYTHON, str(Path(standin.__file__)), verb, str(job.path)]
    child = Child(command, job)
    job_id, _, attempt = job.path.name.rpartition("-")
    witness.started(job_id, int(attempt), child.pid)
    return child


def plays(job: JobDir) -> bool:
    """Whether the job's process is a stand-in."""
    if job.config.exists():
        return f'"{standin.SPEC}"' in job.config.read_text()
    return (job.trained / standin.CHAIN).exists()


def work(*options: str) -> None:
    """Be a worker until told to stop."""
    witness.install()
    off = os.environ.get(guards.VARIABLE)
    if off:
        guards.GUARDS[off]()
    queues = [options[options.index("--queue") + 1]] if "--queue" in options else None
    serve(Settings(), celery="--celery" in options, queues=queues, launch=launch)


if __name__ == "__main__":
    work(*sys.argv[1:])
