"""Stands in for `python -m tdmr`: speaks the JOB_DIR protocol, and does what the spec tells it to.

`run` does what `play` in config.json says, one word, or one for each attempt (the last is
repeated); `package` does what `package_play` said there, or `done`; `rescue` is always `done`.

done    say some progress and write the result
wait    as `done`, once the file `gate` exists
fail    say `failed`
quit    end with exit status 3, without a word
crash   print two lines, then die by SIGKILL
save    write a checkpoint of one step more than the last, and wait; SIGTERM: of ten more, and stop
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
from tdmr.jobdir import STOPPED_STATUS, JobDir, ProgressLine, Reporter, Stage

SAVED = "distil.safetensors"
METRICS: dict[str, Any] = {
    "accuracy": 0.9,
    "partial": None,
    "cache": {"reused": False, "views_per_image": 1},
    "dataset": {"train_images": 1},
    "foundation": {"forwards": 1},
}


def play(job: JobDir, act: str, spec: dict[str, Any], verb: str) -> None:
    reporter = Reporter(job, ["first", "second"], interval=0.0)
    reporter.start("first")
    if act in ("done", "wait"):
        while act == "wait" and not Path(spec["gate"]).exists():
            time.sleep(0.02)
        for step in range(1, 4):
            reporter.step(step, 3, {"loss": 1 / step})
        metrics = {**METRICS, "resumed_from": saved(job)}
        if verb == "rescue":
            metrics["partial"] = {"stage": "distil", "step": saved(job)}
        result(job.out, {"run": {"metrics": metrics, **spec}}.get(verb), metrics)
        reporter.done({"accuracy": 0.9})
    elif act == "save":
        save_until_told(job)
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


def save_until_told(job: JobDir) -> None:
    def stop(*_: object) -> None:
        save(job, saved(job) + 10)
        job.append(ProgressLine(event="stopped", message="as told"))
        raise SystemExit(STOPPED_STATUS)

    signal.signal(signal.SIGTERM, stop)
    save(job, saved(job) + 1)
    while True:
        signal.pause()


def save(job: JobDir, step: int) -> None:
    job.checkpoint.mkdir(exist_ok=True)
    staged = job.checkpoint / ".part"
    staged.write_text(str(step))
    staged.replace(job.checkpoint / SAVED)
    stage = Stage(name="distil", index=1, count=1, progress=0.5)
    job.append(ProgressLine(event="checkpoint", stage=stage, step=step, checkpoint=SAVED))


def saved(job: JobDir) -> int:
    path = job.checkpoint / SAVED
    return int(path.read_text()) if path.exists() else 0


def result(out: Path, trained: dict[str, Any] | None, metrics: dict[str, Any]) -> None:
    """What was trained, or a bundle."""
    out.mkdir()
    if trained is not None:
        (out / "trained.json").write_text(json.dumps(trained))
        return
    given = out.parent / "trained" / "trained.json"
    if given.exists():
        metrics = json.loads(given.read_text())["metrics"]
    (out / "model.safetensors").write_bytes(b"weights")
    (out / "metrics.json").write_text(json.dumps(metrics))
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
    verb, job = sys.argv[1], JobDir(Path(sys.argv[2]))
    source = job.trained / "trained.json" if verb == "package" else job.config
    spec = json.loads(source.read_bytes())
    acts = {"run": spec.get("play", "crash"), "package": spec.get("package_play", "done")}
    words = acts.get(verb, "done")
    words = [words] if isinstance(words, str) else words
    attempt = int(job.path.name.rpartition("-")[2])
    play(job, words[min(attempt, len(words)) - 1], spec, verb)


if __name__ == "__main__":
    main()
