"""One job in several processes of one machine, by torchrun's own launcher; each has its own GPU.

The first does all that a single process would: it reports, saves and writes out/. Each of the
others has a folder in JOB_DIR/processes for what it would have reported. All stay in the process
group of the one that starts them (torchrun's command would give each a session of its own), so that
whatever ends the group ends them.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import distributed
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tdmr import process
from tdmr.errors import Failure
from tdmr.jobdir import STOPPED_STATUS, JobDir, ProgressLine

HERE = "127.0.0.1"
ASKED = "stop"  # in JOB_DIR/processes, once they have to stop
LOOK_SECONDS = 0.2
CLOSE_SECONDS = 5  # for the others to end once one has failed


def run_job(path: Path, count: int, stopping: Callable[[], bool], **given: Any) -> int:
    """As `tdmr.process.run_job`, in `count` processes; `given` is what each of them is told."""
    job = JobDir(path)
    job.processes.mkdir(exist_ok=True)
    told = (job.processes / ASKED, stopping)
    threading.Thread(target=_pass_on, args=told, name="stop", daemon=True).start()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{HERE}:0",
        local_addr=HERE,
        max_restarts=0,
        signals_to_handle="SIGINT",  # at SIGTERM each saves what it has, and then ends
        shutdown_timeout=CLOSE_SECONDS,
    )
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        elastic_launch(config, _one)(path, given)
    except ChildFailedError as error:
        return _ended(job, count, error, stopping)
    finally:
        shutil.rmtree(job.processes, ignore_errors=True)
    return 0


def _pass_on(asked: Path, stopping: Callable[[], bool]) -> None:
    """Tell the processes by a file, from their start on: SIGTERM may come to this one alone."""
    while not stopping():
        time.sleep(LOOK_SECONDS)
    asked.touch()


def _one(path: Path, given: dict[str, Any]) -> None:
    """What each process does. One that fails ends at once: others may be waiting for it."""
    heard = process.told_to_stop(patient=True)  # the group may be told, and each may be told again
    asked = JobDir(path).processes / ASKED

    def stopping() -> bool:
        return heard() or asked.exists()

    status = process.run_job(path, stopping=stopping, number=int(os.environ["RANK"]), **given)
    if status:
        sys.exit(status)
    distributed.destroy_process_group()


def _ended(job: JobDir, count: int, error: ChildFailedError, stopping: Callable[[], bool]) -> int:
    """The status of a run that one process has ended, and why it was, in progress.jsonl."""
    last = job.last()
    if last is not None and last.event == "failed":
        return 1
    if stopping():
        if last is None or last.event != "stopped":
            job.append(ProgressLine(event="stopped", message="stopped before it could save"))
        return STOPPED_STATUS
    told = (JobDir(job.path, number).last() for number in range(1, count))
    found = [line.failure for line in told if line is not None and line.failure is not None]
    stage = last.stage.name if last is not None and last.stage is not None else None
    number, how = error.get_first_failure()
    failure = found[0] if found else _death(number + 1, count, how, stage)
    job.append(ProgressLine(event="failed", failure=failure))
    return 1


def _death(number: int, count: int, how: ProcessFailure, stage: str | None) -> Failure:
    killed = how.exitcode < 0
    ended = f"killed by {signal.Signals(-how.exitcode).name}" if killed else "ended"
    return Failure(
        code="process_died",
        user_error=False,
        stage=stage,
        detail=f"Process {number} of {count} was {ended}, without saying why.",
        retryable=True,
        suggestion="Retry it; the log's last lines may say more. Where memory ran out, try a "
        "smaller batch size or image size.",
    )
