"""Forks processes that have imported everything: a worker starts in milliseconds, not seconds.

`python -m benchmarks.storm.zygote` reads one JSON request per line and answers each by one line:

{"run": NAME, "options": [...], "env": {...}, "log": FILE}  ->  {"pid": N}
{"reap": N}                                                 ->  {"status": S}

A child that has ended stays a zombie until it's reaped, so its number isn't given to another. All
children share one lifeline, which this process holds: they notice when it dies.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.storm import crowd, hand

RUN: dict[str, Callable[..., None]] = {"worker": hand.work, "crowd": crowd.submit}
# What a worker loads only when it begins to work.
LATER = (
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.solo",
    "celery.fixups.django",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.strategy",
    "kombu.transport.redis",
    "psycopg",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
    "worker.celery_app",
    "worker.poller",
)


def main() -> None:
    """Serve requests until their end."""
    for name in LATER:
        importlib.import_module(name)
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, "a process with threads can't be forked"
    lifeline, children = os.pipe(), set[int]()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "reap" in request:
            pid, status = os.waitpid(request["reap"], 0)
            children.discard(pid)
            answer = {"status": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if pid == 0:
                os._exit(_be_child(request, lifeline))
            children.add(pid)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in children:
        os.kill(pid, signal.SIGCONT)  # one that stands still wouldn't notice


def _be_child(request: dict[str, Any], lifeline: tuple[int, int]) -> int:
    os.setsid()
    log = os.open(request["log"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    for source, target in ((lifeline[0], 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for handle in (*lifeline, log):
        os.close(handle)
    os.environ.clear()
    os.environ.update(request["env"])
    try:
        RUN[request["run"]](*request["options"])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # a forked child must end here
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()
