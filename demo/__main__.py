"""`make demo`: the main job through the real path, from an upload to a student that works alone.

Everything goes over HTTP to a server started for the purpose; any broken step ends the demo with
the reason and a status other than 0.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from demo import digits, settings
from demo.report import report, table
from tdmr.client import ApiError, Client, Job

HERE = Path(__file__).resolve().parent
OUT = HERE / "out"
SEED = 0
START_SECONDS = 60

console = Console()


class DemoError(Exception):
    """A step of the demo that didn't do what it should."""


def main() -> None:
    """Walk the main job, and say how it went."""
    began = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    try:
        with tempfile.TemporaryDirectory(prefix="tdmr-demo-") as scratch:
            walk(Path(scratch), began)
    except (DemoError, ApiError, OSError) as error:
        console.print(f"[red]The demo failed:[/red] {error}", highlight=False)
        sys.exit(1)


def walk(scratch: Path, began: float) -> None:
    """Upload, distil, download, classify, report."""
    images = scratch / "digits"
    digits.write(images, settings.SHOTS, SEED)
    archive = Path(shutil.make_archive(str(scratch / "digits"), "zip", images))
    with serving(scratch) as ready, Client(ready["address"], ready["key"]) as client:
        console.print(f"Server at {ready['address']}, with a worker of its own.")
        dataset = client.upload_dataset(archive).wait()
        if dataset.status != "ready" or dataset.splits is None:
            raise DemoError(f"the dataset is {dataset.status}: {dataset.findings}")
        counts = {split: sum(c.values()) for split, c in dataset.splits.items()}
        console.print(f"Dataset {dataset.id} is ready: {counts}.")
        job = distil(client, dataset.id)
        student = job.fetch_student()
        bundle = student.download(OUT / "student")
    console.print("Classifying the held-out images with plain timm, in another process …")
    alone = classify(bundle, images / "test", scratch)
    if alone["right"] != round(student.metrics["accuracy"] * alone["images"]):
        raise DemoError(f"plain timm finds {alone}, the service {student.metrics['accuracy']}")
    if alone["project_modules"]:
        raise DemoError(f"the other process loaded {alone['project_modules']}")
    found = report(student, job, bundle, time.monotonic() - began)
    (HERE / "report.json").write_text(json.dumps(found, indent=2) + "\n")
    console.print(table(student.metrics))
    console.print(
        f"Plain timm alone: {alone['right']} of {alone['images']} held-out images right.\n"
        f"Bundle: {bundle}\nAll in all {found['seconds']:.0f} s. Start the server for good: "
        "[bold]make serve[/bold]",
        highlight=False,
    )


@contextmanager
def serving(scratch: Path) -> Iterator[dict[str, Any]]:
    """The embedded service on a free loopback port; gives its address and access key."""
    ready = scratch / "ready.json"
    command = [
        *(sys.executable, "-m", "app", "serve", "--port", "0"),
        *("--data", str(scratch / "data"), "--ready-file", str(ready)),
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TDMR_")}
    with (OUT / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=HERE.parent, env=environment)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                tail = (OUT / "server.log").read_text(errors="replace")[-2000:]
                raise DemoError(f"the server didn't start:\n{tail}")
            time.sleep(0.05)
        yield json.loads(ready.read_text())
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)


def distil(client: Client, dataset_id: str) -> Job:
    """Submit the job and show its progress until it has succeeded."""
    job = client.submit(
        dataset_id, settings.FOUNDATION, settings.STUDENT, options=settings.options(SEED)
    )
    with StageBars() as bars:
        job = job.wait(bars.show, every=0.25)
    if job.status != "succeeded":
        raise DemoError(f"the job {job.status}: {job.failure}")
    return job


class StageBars:
    """One bar per stage, with loss and time left; in a log file, one line per stage instead."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[left]:<12}"),
            TextColumn("{task.fields[loss]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> StageBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, job: Job) -> None:
        """Draw one answer of GET /v1/jobs/{id}."""
        stage, eta, loss = job.stage, job.eta_seconds, job.losses.get("loss")
        if stage is None or job.status == "queued":
            return
        name = f"{stage.index}/{stage.count} {stage.name}"
        if name not in self._bars:
            for bar in self._bars.values():
                self._progress.update(bar, completed=1.0, left="")
            self._bars[name] = self._progress.add_task(name, total=1.0, left="", loss="")
            if not console.is_terminal:
                console.print(f"{name} …")
        self._progress.update(
            self._bars[name],
            completed=1.0 if job.status == "succeeded" else stage.progress,
            left=f"{eta:.0f} s left" if eta else "",
            loss="" if loss is None else f"loss {loss:.3f}",
        )


def classify(bundle: Path, images: Path, scratch: Path) -> dict[str, Any]:
    """Run classify.py from an empty folder, where this project can't be imported by accident."""
    script = scratch / "classify.py"
    shutil.copyfile(HERE / "classify.py", script)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", str(script), str(bundle), str(images)],
        cwd=scratch,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"plain timm can't use the bundle:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
