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
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import distributed
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tdmr import process
from tdmr.distributed import RENDEZVOUS
from tdmr.errors import Failure
from tdmr.jobdir import STOPPED_STATUS, JobDir, ProgressLine

HERE = "127.0.0.1"
# In JOB_DIR/processes:
ASKED = "stop"  # once they have to stop
LAUNCHER, TOGETHER = "launcher", "together"  # where they meet: no network reaches a file
LOOK_SECONDS = 0.2
CLOSE_SECONDS = 5  # for the others to end once one has failed


def run_job(path: Path, count: int, stopping: Callable[[], bool], **given: Any) -> int:
    """As `tdmr.process.run_job`, in `count` processes; `given` is what each of them is told."""
    job = JobDir(path)
    said = job.progress.stat().st_size if job.progress.exists() else 0  # by earlier runs
    _stay_here()
    with _told(job.processes, stopping):
        try:
            elastic_launch(_launch(count, job.processes), _one)(path, given)
        except ChildFailedError as error:
            return _ended(job, said, count, error, stopping)
    return 0


def _stay_here() -> None:
    """Have this process, and those that it starts, open no port to other machines."""
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # it listens on every address
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")


def _launch(count: int, folder: Path) -> LaunchConfig:
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=str(folder / LAUNCHER),
        rdzv_configs={"store_type": "file"},
        local_addr=HERE,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "torch")),
        max_restarts=0,
        signals_to_handle="SIGINT",  # at SIGTERM each saves what it has, and then ends
        shutdown_timeout=CLOSE_SECONDS,
    )


@contextmanager
def _told(folder: Path, stopping: Callable[[], bool]) -> Iterator[None]:
    """A block whose processes are told to stop by a file: SIGTERM may come to this one alone.

    `folder` is there for as long as the block lasts.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir()
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            if stopping():
                (folder / ASKED).touch()
                return

    looking = threading.Thread(target=look, name="stop", daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
        shutil.rmtree(folder, ignore_errors=True)


def _one(path: Path, given: dict[str, Any]) -> None:
    """What each process does. One that fails ends at once: others may be waiting for it."""
    heard = process.told_to_stop(patient=True)  # the group may be told, and each may be told again
    folder = JobDir(path).processes
    asked = folder / ASKED
    os.environ[RENDEZVOUS] = str(folder / TOGETHER)

    def stopping() -> bool:
        return heard() or asked.exists()

    status = process.run_job(path, stopping=stopping, number=int(os.environ["RANK"]), **given)
    if status:
        sys.exit(status)
    distributed.destroy_process_group()


def _ended(
    job: JobDir, said: int, count: int, error: ChildFailedError, stopping: Callable[[], bool]
) -> int:
    """The status of a run that one process has ended, and why it was, in progress.jsonl.

    What stands before byte `said` of that file was told by others.
    """
    last = job.last(said)
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
