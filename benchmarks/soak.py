"""An hour of mixed load on a real server and its workers: submit, poll, cancel, kill.

    make soak

Trainings are the storm's stand-ins (`benchmarks.storm.standin`): they speak the same protocol and
cost nothing, so that the load is on the service. Writes benchmarks/results/soak.json, or
soak_fast.json (FAST=1: 3 minutes).
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from app.settings import Settings
from benchmarks.machine import commit, machine, write_result
from benchmarks.served import ROOT, Running, serving
from benchmarks.storm import procs, standin
from benchmarks.storm.hand import PYTHON
from tdmr.client import Client
from tdmr.jobdir import JobDir
from tests.shapes import draw_dataset
from tests.support import end

FAST = bool(os.environ.get("FAST"))
MINUTES = 3.0 if FAST else 60.0
PARTS = 12
WARM_UP = 0.25  # of the time, in which memory may still grow
MARK = "TDMR_SOAK"  # in the environment of every process of one run
LEAVE_SECONDS = 20.0
SEED = 0
WORKERS, OPEN_JOBS = 2, 20
PLAY = {"seed": "soak", "steps": 20, "pause": 0.05, "every": 5, "act": "", "gate": None}
VERBS = ("run", "package", "rescue")
EXPECTED = (200, 201, 202, 304, 404, 409, 429)  # 404 and 409: what was asked for has just changed
# Bytes a minute: a mebibyte in ten. Descriptors: of connections that come and go.
BOUNDS = {
    "memory_slope_bytes_per_minute": 2**20 / 10,
    "descriptors_grown": 3,
    "orphans": 0,
    "errors": 0,
}
console = Console()


def work() -> None:
    """Be a worker whose trainings are stand-ins."""
    from worker.cli import serve
    from worker.launch import Child

    def launch(command: list[str], job: JobDir) -> Child:
        verb = next((word for word in command if word in VERBS), None)
        if verb is None:
            return Child(command, job)
        if job.config.exists():
            spec = json.loads(job.config.read_bytes())
            job.config.write_text(json.dumps({**spec, standin.SPEC: PLAY}))
        return Child([*PYTHON, str(Path(standin.__file__)), verb, str(job.path)], job)

    serve(Settings(), launch=launch)


@dataclass
class Load:
    """What is done to a server, and what came of it."""

    server: Running
    dataset_id: str
    draw: random.Random = field(default_factory=lambda: random.Random(SEED))
    jobs: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def repeat(self, seconds: float, act: Callable[[httpx.Client], httpx.Response | None]) -> None:
        """Do it again and again until the end."""
        with self.server.client() as client:
            while not self.stopping.wait(seconds):
                try:
                    response = act(client)
                except httpx.HTTPError as error:
                    self.errors.append(repr(error))
                    continue
                if response is None:
                    continue
                name = f"{response.request.method} {response.status_code}"
                self.counts[name] = self.counts.get(name, 0) + 1
                if response.status_code not in EXPECTED:
                    self.errors.append(f"{name} {response.request.url.path}: {response.text[:300]}")

    def submit(self, client: httpx.Client) -> httpx.Response | None:
        """Order a job, unless enough are open."""
        page = client.get("/v1/jobs?status=queued&limit=100")
        if len(page.json().get("data", [])) >= OPEN_JOBS:
            return page
        spec = {"foundation": "letters_vit", "student": "test_resnet", "baselines": []}
        made = client.post("/v1/jobs", json={"dataset_id": self.dataset_id, **spec})
        if made.status_code == 201:
            self.jobs = [*self.jobs[-500:], made.json()["id"]]
        return made

    def poll(self, client: httpx.Client) -> httpx.Response | None:
        """Look at a job, its log, or the list."""
        if not self.jobs:
            return None
        job = self.draw.choice(self.jobs)
        path = self.draw.choice(["", "", "", "/events"])
        return client.get(f"/v1/jobs/{job}{path}" if self.draw.random() < 0.9 else "/v1/jobs")

    def cancel(self, client: httpx.Client) -> httpx.Response | None:
        """Call one of the last jobs off."""
        if not self.jobs:
            return None
        return client.post(f"/v1/jobs/{self.draw.choice(self.jobs[-OPEN_JOBS:])}/cancel", json={})


class Crew:
    """Workers that are killed and replaced."""

    def __init__(self, server: Running, folder: Path, mark: str) -> None:
        self._log = (folder / "workers.log").open("ab")
        given = {name: value for name, value in os.environ.items() if not name.startswith("TDMR_")}
        quick = {"LEASE_SECONDS": "6", "HEARTBEAT_SECONDS": "1", "POLL_SECONDS": "0.2"}
        self._environment = {
            **given,
            **{f"TDMR_{name}": value for name, value in quick.items()},
            "TDMR_DATA_DIR": str(server.data),
            MARK: mark,
        }
        self.kills = 0
        self.hands = [self._start() for _ in range(WORKERS)]

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "benchmarks.soak", "worker"]
        out = self._log
        return subprocess.Popen(command, stdout=out, stderr=out, env=self._environment, cwd=ROOT)

    def kill(self, draw: random.Random) -> None:
        """Kill a worker, or the process of its job."""
        place = draw.randrange(WORKERS)
        hand = self.hands[place]
        child = procs.leader_under(hand.pid)
        if child is not None and draw.random() < 0.5:
            os.kill(child, signal.SIGKILL)  # its worker reaps it: the number is still its own
        else:
            hand.kill()
            hand.wait()
            self.hands[place] = self._start()
        self.kills += 1

    def stop(self) -> None:
        """End them in order."""
        for hand in self.hands:
            end(hand)
        self._log.close()


def soak(folder: Path, minutes: float, every_seconds: float = 20.0) -> dict[str, Any]:
    """So many minutes of load, one kill every so many seconds; what there is to say of it."""
    mark, samples = folder.name, list[tuple[float, int, int]]()
    draw_dataset(folder / "images", {"train": 2, "test": 2})
    with serving(folder, "--no-worker", quota_waiting_jobs="0") as server:
        crew = Crew(server, folder, mark)
        try:
            with Client(server.address, server.key) as client:
                dataset = client.upload_dataset(folder / "images").wait()
            load = Load(server, dataset.id)
            with _under(load):
                began = killed = time.monotonic()
                while (now := time.monotonic()) - began < 60 * minutes:
                    samples.append(((now - began) / 60, *_held(server.process.pid)))
                    if now - killed > every_seconds:
                        crew.kill(load.draw)
                        killed = now
                    time.sleep(1.0)
        finally:
            crew.stop()
    return {**_grown(samples), **_told(load, crew, _left(f"{MARK}={mark}"))}


def _left(mark: str) -> list[int]:
    """The processes that are still there when all had the time to notice that it's over."""
    until = time.monotonic() + LEAVE_SECONDS
    while (found := procs.marked(mark)) and time.monotonic() < until:
        time.sleep(0.2)
    return found


@contextmanager
def _under(load: Load) -> Iterator[None]:
    acts = ((0.3, load.submit), (0.05, load.poll), (0.05, load.poll), (2.0, load.cancel))
    threads = [threading.Thread(target=load.repeat, args=act) for act in acts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        load.stopping.set()
        for thread in threads:
            thread.join()


def _held(pid: int) -> tuple[int, int]:
    """Bytes of memory and descriptors of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _grown(samples: list[tuple[float, int, int]]) -> dict[str, Any]:
    """What the server took more by the minute, once it was warm (least squares)."""
    warm = samples[int(len(samples) * WARM_UP) :]
    some = max(1, len(warm) // 5)
    first, last = (statistics.median(n for *_, n in part) for part in (warm[:some], warm[-some:]))
    slope = statistics.linear_regression([m for m, *_ in warm], [b for _, b, _ in warm]).slope
    return {
        "minutes": round(samples[-1][0], 1),
        "memory_slope_bytes_per_minute": round(slope),
        "descriptors_grown": round(last - first),
        "memory_bytes": warm[-1][1],
        "course": _course(samples),
    }


def _course(samples: list[tuple[float, int, int]]) -> dict[str, list[float]]:
    """How both went over the time: the median of each of its PARTS."""
    size = max(1, len(samples) // PARTS)
    parts = [samples[at : at + size] for at in range(0, size * PARTS, size)]
    held = [list(zip(*each, strict=True)) for each in parts if each]
    return {
        "memory_mebibytes": [round(statistics.median(each[1]) / 2**20, 1) for each in held],
        "descriptors": [statistics.median(each[2]) for each in held],
    }


def _told(load: Load, crew: Crew, orphans: list[int]) -> dict[str, Any]:
    return {
        "orphans": len(orphans),
        "errors": len(load.errors),
        "first_errors": load.errors[:5],
        "kills": crew.kills,
        "answers": dict(sorted(load.counts.items())),
    }


def missed(result: dict[str, Any]) -> list[str]:
    """The figures that aren't what they must be."""
    return [name for name, bound in BOUNDS.items() if result[name] > bound]


def main() -> None:
    """Run, print and store; ends with 1 where a bound is missed."""
    with tempfile.TemporaryDirectory(prefix="tdmr-soak-") as name:
        measured = soak(Path(name), MINUTES)
    result = {
        **measured,
        "missed": missed(measured),
        "seeds": [SEED],
        "command": f"{'FAST=1 ' if FAST else ''}make soak",
        "commit": commit(),
        "machine": machine(),
    }
    console.print(result)
    console.print(f"Written to {write_result('soak_fast' if FAST else 'soak', result).name}")
    sys.exit(1 if result["missed"] else 0)


if __name__ == "__main__":
    work() if sys.argv[1:] == ["worker"] else main()
