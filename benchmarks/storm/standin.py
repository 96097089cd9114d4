"""Stands in for training: speaks the JOB_DIR protocol (`tdmr.jobdir`) and starts in no time.

    python -S -E standin.py (run | package | rescue) JOB_DIR

Loads the standard library only, so a few lines of `tdmr` are repeated here. Its student is a chain
of hashes over the steps: whoever skips or repeats one ends with another hash. `storm` in the job's
spec has `seed`, `steps`, `pause` (seconds a step), `every` (steps between checkpoints), `gate` (a
file without which the last step isn't begun), and `act`:

die     is killed by SIGKILL after two steps, before any checkpoint
poison  kills its worker after two steps, and dies with it
mute    says nothing after its first checkpoint
deaf    doesn't hear SIGTERM, and goes on when its folder is taken away
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

STUDENT = "model.safetensors"
CHECKPOINT = "distil.safetensors"
CHAIN = "chain.json"  # beside the student; tells that it was a stand-in that trained
SPEC = "storm"
STOPPED_STATUS = 75


def chain(seed: str, steps: int) -> str:
    """The student after so many steps."""
    value = link(seed, -1)
    for step in range(steps):
        value = link(value, step)
    return value


def link(before: str, step: int) -> str:
    """What follows a link of the chain."""
    return hashlib.sha256(f"{before}{step}".encode()).hexdigest()


def reached(name: str) -> None:
    """As `tdmr.failpoint.reached`."""
    wanted, _, marker = os.environ.get("TDMR_FAILPOINT", "").partition(":")
    if wanted != name:
        return
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def hold_lifeline() -> None:
    """As `tdmr.lifeline.hold`: this group doesn't outlive its worker."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    if os.environ.get("TDMR_LIFELINE") == "1":
        threading.Thread(target=watch, daemon=True).start()


class Job:
    """A JOB_DIR."""

    def __init__(self, path: Path) -> None:
        self.path, self.out, self.trained = path, path / "out", path / "trained"
        self.checkpoint = path / "checkpoint" / CHECKPOINT
        self.stopping = False

    def spec(self) -> dict[str, Any]:
        """What it is to do."""
        found: dict[str, Any] = json.loads((self.path / "config.json").read_bytes())[SPEC]
        return found

    def say(self, event: str, step: int = 0, steps: int = 1, **more: Any) -> None:
        """Append a line to progress.jsonl."""
        stage = {"name": "distil", "index": 1, "count": 1, "progress": min(1.0, step / steps)}
        line = {"event": event, "stage": stage, "step": step, "steps": steps, **more}
        with (self.path / "progress.jsonl").open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")

    def save(self, state: dict[str, Any], steps: int) -> None:
        """Replace the checkpoint, durably, and say so."""
        self.checkpoint.parent.mkdir(exist_ok=True)
        part = self.checkpoint.with_name(f".{CHECKPOINT}.part")
        write(part, state)
        reached("checkpoint.written")
        part.replace(self.checkpoint)
        sync(part.parent)
        reached("checkpoint.replaced")
        self.say("checkpoint", state["step"], steps, checkpoint=CHECKPOINT)


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, durably."""
    with path.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def closed(gate: str) -> bool:
    """Whether there is a gate, and it isn't open."""
    return bool(gate) and not Path(gate).exists()


def train(job: Job) -> int:
    """Go on from the checkpoint, if there is one, to the last step."""
    spec = job.spec()
    if spec["act"] == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    state = {"seed": spec["seed"], "step": 0, "chain": link(spec["seed"], -1)}
    if job.checkpoint.exists():
        state = json.loads(job.checkpoint.read_bytes())
    began, steps = state["step"], spec["steps"]
    job.say("progress", began, steps)
    while state["step"] < steps:
        time.sleep(spec["pause"])
        while state["step"] == steps - 1 and closed(spec["gate"]) and not job.stopping:
            time.sleep(0.02)
        state |= {"chain": link(state["chain"], state["step"]), "step": state["step"] + 1}
        if spec["act"] in ("die", "poison") and state["step"] == 2:
            os.kill(os.getppid() if spec["act"] == "poison" else os.getpid(), signal.SIGKILL)
        if spec["act"] == "mute" and state["step"] > spec["every"] and not job.stopping:
            continue
        try:
            job.say("progress", state["step"], steps)
            if job.stopping or state["step"] % spec["every"] == 0:
                job.save(state, steps)
        except FileNotFoundError:
            if spec["act"] != "deaf":
                raise
        if job.stopping:
            job.say("stopped", state["step"], steps)
            return STOPPED_STATUS
    job.out.mkdir()
    write(job.out / STUDENT, state)
    write(job.out / CHAIN, {"began": began})
    return finish(job)


def package(job: Job, source: Path, partial: dict[str, Any] | None) -> int:
    """Make a bundle of a student."""
    job.out.mkdir()
    shutil.copyfile(source, job.out / STUDENT)
    write(job.out / "metrics.json", {"accuracy": 1.0, "partial": partial})
    files = [
        {
            "name": path.name,
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "media_type": "application/octet-stream",
        }
        for path in sorted(job.out.iterdir())
    ]
    write(job.out / "manifest.json", {"files": files})
    return finish(job)


def finish(job: Job) -> int:
    """The result is whole: say so."""
    sync(job.out)
    reached("result.written")
    job.say("done", result={})
    reached("result.said")
    return 0


def main() -> int:
    """Do what the command line says."""
    hold_lifeline()
    verb, job = sys.argv[1], Job(Path(sys.argv[2]))

    def stop(*_: object) -> None:
        job.stopping = True

    signal.signal(signal.SIGTERM, stop)
    if verb == "run":
        return train(job)
    if verb == "package":
        return package(job, job.trained / STUDENT, None)
    step = json.loads(job.checkpoint.read_bytes())["step"]
    return package(job, job.checkpoint, {"stage": "distil", "step": step})


if __name__ == "__main__":
    sys.exit(main())
