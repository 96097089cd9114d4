"""Stands in for training: speaks the JOB_DIR protocol, and does what the job's spec tells it to.

`play` in config.json is one word, or one for each attempt (the last is repeated):

done    say some progress and write a bundle
wait    as `done`, once the file `gate` exists
fail    say `failed`
quit    end with exit status 3, without a word
crash   print two lines, then die by SIGKILL
hang    start a process of its own, tell both numbers in a warning, and go on for ever
defy    as `hang`, deaf to SIGTERM, the other one too
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tdmr import lifeline
from tdmr.errors import Failure
from tdmr.jobdir import JobDir, Reporter


def play(job: JobDir, act: str, spec: dict[str, Any]) -> None:
    reporter = Reporter(job, ["first", "second"], interval=0.0)
    reporter.start("first")
    if act in ("done", "wait"):
        while act == "wait" and not Path(spec["gate"]).exists():
            time.sleep(0.02)
        for step in range(1, 4):
            reporter.step(step, 3, {"loss": 1 / step})
        bundle(job.out)
        reporter.done({"accuracy": 0.9})
    elif act == "fail":
        print("the loss is not finite")
        failure = Failure(code="non_finite_loss", user_error=True, detail="It blew up.")
        reporter.failed(failure)
        raise SystemExit(1)
    elif act == "quit":
        raise SystemExit(3)
    elif act == "crash":
        print("allocating\nallocating more", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        hang(reporter, deaf=act == "defy")


def hang(reporter: Reporter, *, deaf: bool) -> None:
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a child inherits that
    other = subprocess.Popen(["sleep", "600"])
    reporter.warn(json.dumps([os.getpid(), other.pid]))
    step = 0
    while True:
        step += 1
        reporter.step(step, 10**6, {"loss": 1.0})
        time.sleep(0.1)


def bundle(out: Path) -> None:
    out.mkdir()
    (out / "model.safetensors").write_bytes(b"weights")
    (out / "metrics.json").write_text(json.dumps({"accuracy": 0.9}))
    files = [
        {
            "name": path.name,
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "media_type": "application/octet-stream",
        }
        for path in sorted(out.iterdir())
    ]
    (out / "manifest.json").write_text(json.dumps({"files": files}))


def main() -> None:
    lifeline.hold()
    job = JobDir(Path(sys.argv[1]))
    spec = json.loads(job.config.read_bytes())
    attempt = int(job.path.name.rpartition("-")[2])
    acts = spec.get("play", "crash")
    acts = [acts] if isinstance(acts, str) else acts
    play(job, acts[min(attempt, len(acts)) - 1], spec)


if __name__ == "__main__":
    main()
