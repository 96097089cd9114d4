"""Memory follows the batch and the model, not the dataset.

This file is also what is measured: `python test_memory.py IMAGES FOUNDATION FOLDER [hold]` prints
by how many bytes a distillation from so many images grew its process; `hold` is the mistake of
keeping them all in memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tdmr.config import DistillOptions, JobSpec, ReprogramOptions, TrainingOptions, ViewOptions

SIDE = 128
FEW, MANY = 100, 1000
IMAGE = 3 * SIDE * SIDE  # bytes, decoded
# What each image more may cost: its entry in the index, its place in a shuffle, and room for the
# allocator. Less than 4 KB were measured.
PER_IMAGE = IMAGE // 2
# What the batches and samples of a distillation are cut to, so that a few images fill them.
BATCH, ROWS = 8, 150


def anonymous() -> int:
    """Bytes of this process that no file holds."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) * 1024


def draw(folder: Path, images: int) -> None:
    """Two classes of noise, all images different, and a few held out."""
    rng = np.random.default_rng(0)
    for split, count in (("train", images), ("test", 4)):
        for number in range(count):
            place = folder / split / f"class{number % 2}"
            place.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")


def measure(images: int, foundation: str, folder: Path, *, hold: bool) -> int:
    """How many bytes the process grew by, at its largest."""
    import torch

    from tdmr import cache, reprogram, run, stages, task, training
    from tdmr.feed import clean_batches
    from tdmr.jobdir import Reporter

    torch.set_num_threads(1)
    reprogram.STATISTICS_ROWS = reprogram.PROBE_ROWS = ROWS
    cache.BATCH = BATCH
    training.clean_batches = lambda pixels, size, device: clean_batches(pixels, BATCH, device)
    if hold:
        store = task.pixel_store
        task.pixel_store = lambda *arguments: np.array(store(*arguments))
    draw(folder / "data", images)
    spec = JobSpec(
        foundation=foundation,
        student="test_resnet",
        baselines=(),
        options=DistillOptions(
            image_size=SIDE,
            views=ViewOptions(count=2),
            reprogram=ReprogramOptions(mode="trained", proxy_dim=16, steps=5, batch_size=BATCH),
            training=TrainingOptions(steps=5, batch_size=BATCH),
            audit=False,  # its memory is bounded by the most images that it looks at
        ),
    )
    before, peak, over = anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.002):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run.run(
            spec, folder / "data", folder / "out", cache=folder / "cache",
            device=torch.device("cpu"), reporter=Reporter(None, stages.of_job(spec.baselines)),
        )  # fmt: skip
    finally:
        over.set()
        watcher.join()
    assert len(list((folder / "cache").glob("*/array.npy"))) == 5  # pixels and features
    return max(peak, anonymous()) - before


def growth(images: int, foundation: Path, folder: Path, *more: str) -> int:
    """The same in a process of its own."""
    folder.mkdir()
    command = [sys.executable, __file__, str(images), f"local-dir:{foundation}", str(folder)]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, *more], cwd=root, text=True, check=False, timeout=540, capture_output=True,
        env={
            **os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "PYTHONPATH": str(root),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell no file's pages apart")
def test_ten_times_the_images_take_no_more_memory(foundation_folder: Path, tmp_path: Path) -> None:
    few = growth(FEW, foundation_folder, tmp_path / "few")
    many = growth(MANY, foundation_folder, tmp_path / "many")
    held = growth(MANY, foundation_folder, tmp_path / "held", "hold")
    allowed = (MANY - FEW) * PER_IMAGE
    assert many - few < allowed < held - few


if __name__ == "__main__":
    print(measure(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), hold="hold" in sys.argv[4:]))
