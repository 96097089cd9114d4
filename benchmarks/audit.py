"""How much of what is wrong with a dataset the audit finds, and how often it cries wolf.

    make bench-audit

Datasets are the handwritten digits and the drawn patterns, half for training and half held out.
Into each are planted: near-duplicates of 5 % of the training images beside them, near-duplicates of
another 5 % among the held-out ones (leaks), and a wrong label on 5 % of the training images. A
near-duplicate is the image as JPEG, or made smaller and large again, brighter or darker, cropped by
up to two of its 32 pixels and stretched again, or noisy. The audit's limits were settled on the
same digits with other faults in them, and on patterns of other seeds (below 100). A false alarm is
an image in which nothing was planted and which is reported. Writes benchmarks/results/audit.json;
FAST=1 for one draw of each dataset.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_digits

from benchmarks import patterns
from benchmarks.machine import commit, machine, write_result
from tdmr import audit
from tdmr.config import DistillOptions, JobSpec
from tdmr.jobdir import Reporter
from tdmr.store import ArrayStore
from tdmr.task import prepare

FAST = bool(os.environ.get("FAST"))
FOUNDATIONS = ("letters_vit", "letters_cnn", "letters_hybrid")[: 1 if FAST else 3]
SEEDS = range(100, 101 if FAST else 105)
SHARE = 0.05
SIDE = 32
PER_CLASS = 90  # patterns of each class
KINDS = ("duplicates", "leaks", "mislabels")

Pixels = npt.NDArray[np.uint8]
Chance = np.random.Generator


@dataclass
class Planted:
    """A dataset on disk, and what is wrong with it, by the names of the files."""

    images: int = 0
    duplicates: set[frozenset[str]] = field(default_factory=set)
    leaks: set[frozenset[str]] = field(default_factory=set)
    mislabels: set[str] = field(default_factory=set)


def digits(_: int) -> tuple[Pixels, list[str]]:
    """All handwritten digits: (images, SIDE, SIDE, 3) and their classes."""
    found = load_digits()
    images = [
        Image.fromarray((image * (255 / 16)).astype(np.uint8)).resize((SIDE, SIDE)).convert("RGB")
        for image in found.images
    ]
    return np.stack([np.asarray(image) for image in images]), [str(n) for n in found.target]


def drawn(seed: int) -> tuple[Pixels, list[str]]:
    """Patterns, drawn anew for each seed."""
    images, places = patterns.draw(PER_CLASS * len(patterns.CLASSES), seed)
    return images, [patterns.CLASSES[place] for place in places]


TARGETS: dict[str, Callable[[int], tuple[Pixels, list[str]]]] = {
    "digits": digits,
    "patterns": drawn,
}


def as_jpeg(image: Image.Image, chance: Chance) -> Image.Image:
    """Compressed with quality 60 to 90."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(chance.integers(60, 91)))
    return Image.open(buffer).convert("RGB")


def rescaled(image: Image.Image, chance: Chance) -> Image.Image:
    """Made smaller by up to a quarter, and large again."""
    side = int(chance.integers(24, 30))
    return image.resize((side, side)).resize(image.size)


def relit(image: Image.Image, chance: Chance) -> Image.Image:
    """Brighter or darker by up to 15 %."""
    return Image.fromarray(_bytes(np.asarray(image) * chance.uniform(0.85, 1.15)))


def cropped(image: Image.Image, chance: Chance) -> Image.Image:
    """Without one or two pixels at some of its sides, stretched again."""
    left, top, right, bottom = chance.integers(0, 3, 4)
    return image.crop((left, top, SIDE - right, SIDE - bottom)).resize(image.size)


def noisy(image: Image.Image, chance: Chance) -> Image.Image:
    """With noise of 6 grey levels."""
    return Image.fromarray(_bytes(np.asarray(image) + chance.normal(0, 6, (SIDE, SIDE, 3))))


CHANGES = (as_jpeg, rescaled, relit, cropped, noisy)


def _bytes(values: npt.NDArray[np.float64]) -> Pixels:
    return values.round().clip(0, 255).astype(np.uint8)


def plant(folder: Path, target: str, seed: int) -> Planted:
    """Write a dataset with faults into `folder`."""
    chance = np.random.default_rng(seed)
    images, names = TARGETS[target](seed)
    order = chance.permutation(len(images))
    trained = order[: len(order) // 2]
    labels = dict(enumerate(names))
    classes = sorted(set(names))
    planted, count = Planted(), round(SHARE * len(trained))
    for place in chance.choice(trained, count, replace=False):
        labels[place] = str(chance.choice([name for name in classes if name != labels[place]]))
        planted.mislabels.add(_write(folder, "train", labels[place], f"{place}", images[place]))
    for place in trained:
        _write(folder, "train", labels[place], f"{place}", images[place])
    for place in order[len(trained) :]:
        _write(folder, "test", labels[place], f"{place}", images[place])
    sources = chance.choice(trained, 2 * count, replace=False)
    for number, place in enumerate(sources):
        change = CHANGES[chance.integers(len(CHANGES))]
        copy = np.asarray(change(Image.fromarray(images[place]), chance))
        split, pairs = ("train", planted.duplicates) if number < count else ("test", planted.leaks)
        # A copy bears the right name, whatever its original is called by now.
        source = f"train/{labels[place]}/{place}.png"
        pairs.add(frozenset({source, _write(folder, split, names[place], f"{place}-copy", copy)}))
    planted.images = len(images) + len(sources)
    return planted


def _write(folder: Path, split: str, label: str, name: str, image: Pixels) -> str:
    path = folder / split / label / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path.relative_to(folder).as_posix()


def one(target: str, foundation: str, seed: int) -> dict[str, Any]:
    """What the audit makes of one dataset."""
    with tempfile.TemporaryDirectory() as scratch:
        data, store = Path(scratch) / "data", ArrayStore(Path(scratch) / "cache")
        planted = plant(data, target, seed)
        options = DistillOptions(seed=seed, image_size=SIDE)
        spec = JobSpec(foundation=foundation, student="test_resnet", options=options)
        task, index = prepare(spec, data, store, torch.device("cpu"), Reporter(None, ["prepare"]))
        found = audit.look(task, index, store)
    assert found is not None
    told = {
        kind: {frozenset(image["file"] for image in each["images"]) for each in found[kind]}
        for kind in ("duplicates", "leaks")
    }
    doubted = {each["image"]["file"] for each in found["mislabels"]}
    wrong = {name for kind in ("duplicates", "leaks") for pair in told[kind] for name in pair
             if pair not in getattr(planted, kind)}  # fmt: skip
    return {
        "target": target,
        "foundation": foundation,
        "seed": seed,
        "images": planted.images,
        "duplicates": [len(told["duplicates"] & planted.duplicates), len(planted.duplicates)],
        "leaks": [len(told["leaks"] & planted.leaks), len(planted.leaks)],
        "mislabels": [len(doubted & planted.mislabels), len(planted.mislabels)],
        "false_alarms": {
            "pairs": len(wrong),
            "mislabels": len(doubted - planted.mislabels),
            "images": len(wrong | (doubted - planted.mislabels)),
        },
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares over all rows together."""
    images = sum(row["images"] for row in rows)

    def share(kind: str) -> float:
        found, planted = (sum(row[kind][place] for row in rows) for place in (0, 1))
        return round(found / planted, 4)

    def alarms(kind: str) -> float:
        return round(sum(row["false_alarms"][kind] for row in rows) / images, 4)

    return {
        **{f"{kind}_found": share(kind) for kind in KINDS},
        "false_alarm_rate": alarms("images"),
        "false_pair_rate": alarms("pairs"),
        "false_mislabel_rate": alarms("mislabels"),
    }


def show(console: Console, rows: list[dict[str, Any]], over_all: dict[str, Any]) -> None:
    """The table."""
    table = Table("dataset", "foundation", *KINDS, "false alarms", title="found by the audit")
    for target in TARGETS:
        for foundation in FOUNDATIONS:
            part = [r for r in rows if (r["target"], r["foundation"]) == (target, foundation)]
            each = summary(part)
            found = [f"{each[f'{kind}_found']:.1%}" for kind in KINDS]
            table.add_row(target, foundation, *found, f"{each['false_alarm_rate']:.2%}")
    found = [f"{over_all[f'{kind}_found']:.1%}" for kind in KINDS]
    table.add_row("all", "", *found, f"{over_all['false_alarm_rate']:.2%}")
    console.print(table)


def main() -> None:
    """Plant, look, count."""
    console = Console(width=110)
    units = [(t, f, seed) for t in TARGETS for f in FOUNDATIONS for seed in SEEDS]
    rows = [one(*unit) for unit in track(units, "audits", console=console)]
    over_all = summary(rows)
    show(console, rows, over_all)
    write_result(
        "audit_fast" if FAST else "audit",
        {
            **over_all,
            "share_planted": SHARE,
            "seeds": list(SEEDS),
            "command": "make bench-audit",
            "commit": commit(),
            "machine": machine(),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
