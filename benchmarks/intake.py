"""The check of an upload against a bare Pillow loop that decodes and resizes the same files.

    make bench-intake

The files are drawn like photographs: JPEG, 500 x 375 pixels, about 70 kB. The bare loop opens each
file of a folder, converts it to RGB and resizes its shorter side to 224 pixels (bicubic), and does
nothing else. The check reads them from a zip archive, in its own limited process as a worker starts
it, and also refuses what isn't safe, hashes, makes thumbnails, looks for duplicates and writes the
canonical dataset. Images per second of processor time are compared, start-up included, in rounds
that take turns; `images_per_second` is by the clock, on all cores. Writes
benchmarks/results/intake.json; FAST=1 for fewer files.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.datasets.options import CheckOptions
from benchmarks.machine import commit, machine, write_result
from tdmr.jobdir import JobDir

FAST = bool(os.environ.get("FAST"))
IMAGES = 600 if FAST else 4000
ROUNDS = 3 if FAST else 7
SIZE = (500, 375)
SIDE = 224
CLASSES = 10
BARE = f"""
import sys
from pathlib import Path
from PIL import Image
for path in sorted(Path(sys.argv[1]).rglob("*.jpg")):
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    scale = {SIDE} / min(rgb.size)
    rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.BICUBIC)
"""


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock and of the processor, that of child processes included."""

    clock: float
    processor: float


def photograph(chance: np.random.Generator) -> bytes:
    """A JPEG of soft colours and noise, about as large as a photograph of that size."""
    width, height = SIZE
    coarse: npt.NDArray[np.uint8] = chance.integers(
        0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8
    )
    soft = np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC), np.float64)
    noise = chance.normal(0, 10, (height, width, 3))
    buffer = io.BytesIO()
    Image.fromarray((soft + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def write(folder: Path, archive: Path) -> int:
    """Draw the files into a folder and a zip archive; gives their size in bytes."""
    chance = np.random.default_rng(0)
    total = 0
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for number in range(IMAGES):
            data = photograph(chance)
            name = f"{number % CLASSES}/{number:05}.jpg"
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            target.writestr(name, data)
            total += len(data)
    return total


def timed(command: list[str]) -> Cost:
    """What a command costs. Raises CalledProcessError when it fails."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Cost(time.perf_counter() - began, used)


def check(scratch: Path, archive: Path, processes: int) -> Cost:
    """The check, as a worker starts it."""
    job = JobDir(scratch / "job")
    job.data.mkdir(parents=True)
    os.link(archive, job.data / "upload")
    job.config.write_text(CheckOptions(processes=processes).model_dump_json())
    cost = timed([sys.executable, "-m", "app.datasets.check", str(job.path)])
    report = json.loads((job.out / "report.json").read_bytes())
    assert report["ok"], report["findings"][:3]
    assert report["images"] == IMAGES
    shutil.rmtree(job.path)
    return cost


def measure(scratch: Path, console: Console) -> dict[str, Any]:
    """Rounds of both, in turns."""
    folder, archive = scratch / "files", scratch / "files.zip"
    size = write(folder, archive)
    bare, alone, all_cores = [], [], []
    for number in track(range(ROUNDS), "rounds", console=console):
        turns = [
            lambda: bare.append(timed([sys.executable, "-c", BARE, str(folder)])),
            lambda: alone.append(check(scratch, archive, 1)),
            lambda: all_cores.append(check(scratch, archive, os.cpu_count() or 1)),
        ]
        for turn in turns[number % 3 :] + turns[: number % 3]:
            turn()
    ratios = [one.processor / other.processor for one, other in zip(bare, alone, strict=True)]
    shared = [one.processor / other.processor for one, other in zip(bare, all_cores, strict=True)]
    return {
        "over_pillow": round(median(ratios), 3),
        "over_pillow_rounds": [round(min(ratios), 3), round(max(ratios), 3)],
        "over_pillow_all_cores": round(median(shared), 3),
        "images_per_second": round(IMAGES / median(cost.clock for cost in all_cores), 1),
        "images_per_core_second": round(IMAGES / median(cost.processor for cost in alone), 1),
        "pillow_per_core_second": round(IMAGES / median(cost.processor for cost in bare), 1),
        "images": IMAGES,
        "bytes": size,
    }


def main() -> None:
    """Draw, take turns, compare."""
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(Path(scratch), console)
    table = Table("figure", "value", title="the check against a bare Pillow loop")
    for name, value in found.items():
        table.add_row(name, str(value))
    console.print(table)
    write_result(
        "intake_fast" if FAST else "intake",
        {
            **found,
            "command": "make bench-intake",
            "seed": 0,
            "commit": commit(),
            "machine": machine(),
        },
    )


if __name__ == "__main__":
    main()
