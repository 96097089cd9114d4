"""From published archives to a dataset folder that `tdmr.distill` takes.

Below the folder of a dataset: archives/ as downloaded, original/ as unpacked, dataset/ with
index.json and images/, subsets/ with fewer training images. Each of them appears when complete.
"""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import tarfile
import uuid
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image, UnidentifiedImageError

from tdmr.data.index import DatasetIndex, IndexedImage, content_hash, load_index
from tdmr.errors import DatasetError
from tdmr.suite.download import by_hand, fetch, verify
from tdmr.suite.layouts import IMAGES, LOADERS, Entry, link
from tdmr.suite.sources import Source

Shots = int | Literal["all"]
OnWork = Callable[[str, int, int], None]
BROKEN_TAR = (tarfile.TarError, EOFError, zlib.error)


def ignore(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def prepare(
    source: Source, root: Path, *, download: bool = False, on_work: OnWork = ignore
) -> Path:
    """The dataset folder of `source` below `root`, made from what is already there if possible.

    `on_work(what, done, total)` hears of bytes and images. Raises DatasetError for files that are
    missing, damaged or other than expected, and DownloadError where `download` is on.
    """
    folder = root / source.name
    dataset = folder / "dataset"
    if not dataset.exists():
        original = folder / "original"
        if not original.exists():
            unpack(source, folder, original, download=download, on_work=on_work)
        with appearing(dataset) as staged:
            build(source, original, staged, on_work)
    check_counts(load_index(dataset), source, dataset)
    return dataset


def unpack(
    source: Source, folder: Path, original: Path, *, download: bool, on_work: OnWork = ignore
) -> None:
    """Put every archive's content below `original`, downloading what is missing if allowed."""
    archives = folder / "archives"
    for archive in source.archives:
        path = archives / archive.name
        if path.exists():
            verify(archive, path)
        elif download:
            fetch(archive, path, partial(on_work, archive.name))
        else:
            raise DatasetError(
                f"There is no {path}.",
                suggestion=f"Add --download, or {by_hand(archive, path)} Terms: {source.terms}",
            )
    with appearing(original) as staged:
        for archive in source.archives:
            path = archives / archive.name
            if not archive.is_tar:
                shutil.copyfile(path, staged / path.name)
                continue
            try:
                with tarfile.open(path) as tar:
                    tar.extractall(staged, filter="data")
            except BROKEN_TAR as error:
                raise DatasetError(f"{path} can't be unpacked: {error}.") from error


def build(source: Source, original: Path, target: Path, on_work: OnWork = ignore) -> None:
    """Write images/ and index.json of `source` into the empty folder `target`."""
    listing = LOADERS[source.name](original, target)
    images = []
    for number, entry in enumerate(listing.entries, 1):
        images.append(measured(target, entry))
        on_work(f"{source.name} images", number, len(listing.entries))
    index = DatasetIndex(version=content_hash(images), classes=listing.classes, images=images)
    check_counts(index, source, original)
    (target / "index.json").write_text(index.model_dump_json(), encoding="utf-8")


def measured(folder: Path, entry: Entry) -> IndexedImage:
    """An entry with its file's hash and its sides in pixels."""
    path = folder / entry.file
    if ".." in Path(entry.file).parts:
        raise DatasetError(f"{entry.source} lies outside the images.")
    if not path.is_file():
        raise DatasetError(f"{entry.source} is listed, but there is no such image.")
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError) as error:
        raise DatasetError(f"{entry.source} isn't an image that can be read: {error}.") from error
    return IndexedImage(
        file=entry.file,
        label=entry.label,
        split=entry.split,
        source=entry.source,
        sha256=hashlib.sha256(content).hexdigest(),
        width=width,
        height=height,
    )


def check_counts(index: DatasetIndex, source: Source, where: Path) -> None:
    """Raise DatasetError unless classes and splits have the sizes that the publishers state."""
    splits = Counter(image.split for image in index.images)
    pairs = {
        "classes": (len(index.classes), source.classes),
        "training images": (splits["train"], source.train),
        "validation images": (splits["val"], source.val),
        "test images": (splits["test"], source.test),
    }
    for what, (found, expected) in pairs.items():
        if found != expected:
            raise DatasetError(
                f"{where} has {found} {what}; {source.title} has {expected}.",
                suggestion="Remove the folder, and run it again.",
            )


def few_shot(dataset: Path, shots: Shots, seed: int) -> Path:
    """The dataset folder with `shots` training images per class, drawn by `seed`; `all`: itself.

    A class that has fewer keeps what it has. With one seed, fewer shots are part of more. Nothing
    but the training split changes.
    """
    if shots == "all":
        return dataset
    target = dataset.parent / "subsets" / f"{shots}-shots-seed-{seed}"
    index = load_index(dataset)
    images = draw(index, shots, seed)
    reduced = index.model_copy(update={"images": images, "version": content_hash(images)})
    text = reduced.model_dump_json()
    if target.exists():
        if (target / "index.json").read_text(encoding="utf-8") == text:
            return target
        # The dataset was made again since, from other files.
        shutil.rmtree(target)
    with appearing(target) as staged:
        link(staged, dataset / IMAGES)
        (staged / "index.json").write_text(text, encoding="utf-8")
    return target


def draw(index: DatasetIndex, shots: int, seed: int) -> list[IndexedImage]:
    """The images of `index` in order, less the training images that aren't drawn."""
    members: dict[str, list[IndexedImage]] = defaultdict(list)
    for image in index.split("train"):
        members[image.label].append(image)
    kept: set[str] = set()
    for label, images in members.items():
        images.sort(key=lambda image: (image.sha256, image.file))
        random.Random(f"{seed}:{label}").shuffle(images)
        kept.update(image.file for image in images[:shots])
    return [image for image in index.images if image.split != "train" or image.file in kept]


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its name when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    staged.mkdir()
    try:
        yield staged
        staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
