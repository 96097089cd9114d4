"""Good uploads by a seeded recipe: formats, layouts, images and names as people have them."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.app.datasets import tarballs, zips

Files = dict[str, bytes]
Labelled = list[tuple[bytes, str, str]]  # bytes, class, suffix

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
}
SUFFIXES = {"PNG": ("png", "PNG"), "JPEG": ("jpg", "jpeg", "JPG", "jfif"), "WEBP": ("webp",)}
NAMES = (
    "cat dog bird fish",
    "0 1 2 3",
    "\u732b \u72ac \u9ce5 \u9b5a",
    "caf\u00e9 na\u00efve \u00e5ngstr\u00f6m co\u00f6p",
    "cafe\u0301 nai\u0308ve a\u030angstro\u0308m coo\u0308p",
    "\u043a\u043e\u0442 \u043f\u0451\u0441 \u0439\u043e\u0434 \u044e\u043b\u0430",
    "\u0642\u0637 \u0643\u0644\u0628 \u0637\u064a\u0631 \u0633\u0645\u0643\u0629",
    "\U0001f431 \U0001f436 \U0001f426 \U0001f41f",
    "New_York Los-Angeles (x) [y]",
    "c++ c# f& %20",
    "test val2 training1 other",
    "n01440764 n01443537 n01484850 n01491361",
)
LITTER = {
    "__MACOSX/a/._1.png": b"x",
    ".DS_Store": b"\0\0\0\1Bud1",
    "Thumbs.db": b"\xd0\xcf\x11\xe0",
    "desktop.ini": b"[.ShellClassInfo]",
    ".git/config": b"[core]",
}
NOTES = {"README.md": b"# Pictures\n", "LICENSE": b"free", "checksums.md5": b"d41d8cd9"}


def archives(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """So many good uploads, each with what it is."""
    for number in range(count):
        dice = random.Random(f"{seed}/{number}")
        layout = dice.choice([*LAYOUTS, None])
        labelled = _labelled(dice)
        if layout is None:
            yield f"good-{number}-parquet", parquet(dice, labelled)
            continue
        files = _with_litter(dice, layout(dice, labelled))
        packing = dice.choice(PACKINGS)
        yield f"good-{number}-{layout.__name__}-{packing.__name__}", packing(dice, files)


def picture(dice: random.Random, kind: str) -> bytes:
    """A small picture that is like no other: random in places, in any of a format's modes."""
    mode = dice.choice(MODES[kind])
    size = dice.randint(8, 40), dice.randint(8, 40)
    small = Image.frombytes("RGB", (4, 4), dice.randbytes(48))
    image = small.resize(size, Image.Resampling.BICUBIC)
    image.paste(Image.frombytes("RGB", (4, 4), dice.randbytes(48)), (dice.randint(0, 4), 2))
    if mode == "I;16":
        image = Image.frombytes("I;16", (8, 8), dice.randbytes(128))
    elif mode == "1":
        image = Image.frombytes("1", (32, 16), dice.randbytes(64))
    elif mode != "RGB":
        image = image.convert(mode)
    exif = Image.Exif()
    if mode in ("RGB", "L") and dice.random() < 0.2:
        exif[0x0112] = dice.randint(1, 8)
    options = _options(dice, kind)
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif.tobytes(), **options)
    return buffer.getvalue()


def _options(dice: random.Random, kind: str) -> dict[str, object]:
    if kind == "JPEG":
        return {"quality": dice.randint(60, 100), "progressive": dice.random() < 0.3}
    if kind == "WEBP":
        return {"lossless": dice.random() < 0.5}
    return {"compress_level": dice.randint(0, 9), "optimize": dice.random() < 0.2}


def _labelled(dice: random.Random) -> Labelled:
    """Two to four classes of three to eight images."""
    names = dice.choice(NAMES).split()[: dice.randint(2, 4)]
    kinds = dice.choice((("PNG",), ("JPEG",), ("WEBP",), ("PNG", "JPEG", "WEBP")))
    found = []
    for name in names:
        for _ in range(dice.randint(3, 8)):
            kind = dice.choice(kinds)
            found.append((picture(dice, kind), name, dice.choice(SUFFIXES[kind])))
    return found


def _with_litter(dice: random.Random, files: Files) -> Files:
    if dice.random() < 0.3:
        files = {**files, **dict(dice.sample(sorted(LITTER.items()), 2))}
    if dice.random() < 0.2:
        files = {**files, **dict(dice.sample(sorted(NOTES.items()), 1))}
    return files


def folders(dice: random.Random, labelled: Labelled) -> Files:
    """Class folders, perhaps deeper, perhaps with entries of their own."""
    deeper = dice.choice(("", "", "2024/", "a b/c/"))
    stem = dice.choice(("", "IMG ", "\u5199\u771f", "x" * 120))
    files = {f"{v}/{deeper}{stem}{n}.{s}": d for n, (d, v, s) in enumerate(labelled)}
    own = {f"{v}/": b"" for _, v, _ in labelled} if dice.random() < 0.3 else {}
    return {**own, **files}


def wrapped(dice: random.Random, labelled: Labelled) -> Files:
    """Class folders in one more."""
    top = dice.choice(("dataset", "my pictures", "\u30c7\u30fc\u30bf", "v1.0"))
    return {f"{top}/{name}": data for name, data in folders(dice, labelled).items()}


def splits(dice: random.Random, labelled: Labelled) -> Files:
    """Class folders in train, and test or val."""
    test = dice.choice(("test", "val", "Test"))
    seen: dict[str, int] = {}
    files = {}
    for n, (data, label, suffix) in enumerate(labelled):
        seen[label] = seen.get(label, 0) + 1
        files[f"{'train' if seen[label] != 3 else test}/{label}/{n}.{suffix}"] = data
    return files


def csv(dice: random.Random, labelled: Labelled) -> Files:
    """Images in one folder, and a table."""
    comma = dice.choice(",;\t")
    files = {f"images/{n}.{s}": d for n, (d, _, s) in enumerate(labelled)}
    header = dice.choice(("file", "file_name", "path")) + comma + dice.choice(("label", "class"))
    end = dice.choice(("\n", "\r\n"))
    rows = [f"{name}{comma}{v}" for name, (_, v, _) in zip(files, labelled, strict=True)]
    mark = dice.choice(("", "\N{ZERO WIDTH NO-BREAK SPACE}"))
    return {**files, "labels.csv": (mark + end.join([header, *rows]) + end).encode()}


def jsonl(dice: random.Random, labelled: Labelled) -> Files:
    """Images in one folder, and a line of JSON for each."""
    files = {f"{n}.{s}": d for n, (d, _, s) in enumerate(labelled)}
    rows = zip(files, labelled, strict=True)
    lines = [json.dumps({"file": name, "label": v}, ensure_ascii=dice.random() < 0.5)
             for name, (_, v, _) in rows]  # fmt: skip
    table = ("\n".join(lines) + "\n").encode()
    return {f"data/{n}": d for n, d in files.items()} | {"data/metadata.jsonl": table}


def samples(dice: random.Random, labelled: Labelled) -> Files:
    """Images with their class in a file beside each."""
    asked = dice.choice(("cls", "json"))
    files = {}
    for n, (data, label, suffix) in enumerate(labelled):
        said = label if asked == "cls" else json.dumps({"label": label})
        files[f"{n:05}.{suffix.lower()}"] = data
        files[f"{n:05}.{asked}"] = said.encode()
    return files


def parquet(dice: random.Random, labelled: Labelled) -> bytes:
    """Rows, as bytes or as the hub's structs."""
    images: list[object] = [data for data, _, _ in labelled]
    if dice.random() < 0.5:
        images = [{"bytes": data, "path": f"{n}.png"} for n, data in enumerate(images)]
    table = pa.table({"image": images, "label": [label for _, label, _ in labelled]})
    buffer = io.BytesIO()
    compression = dice.choice(("none", "snappy", "gzip", "zstd", "lz4", "brotli"))
    pq.write_table(
        table,
        buffer,
        compression=compression,
        row_group_size=dice.choice((3, 1000)),
        use_dictionary=dice.random() < 0.5,
        data_page_version=dice.choice(("1.0", "2.0")),
    )
    return buffer.getvalue()


def zipped(dice: random.Random, files: Files) -> bytes:
    """By Python's own zipfile."""
    return zips.pack(files, dice.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def streamed(dice: random.Random, files: Files) -> bytes:
    """A zip written to a pipe, or for files of any size."""
    return dice.choice((zips.streamed, zips.forced_zip64))(files)


def tarred(dice: random.Random, files: Files) -> bytes:
    """A tar, in the pax or the GNU format."""
    return tarballs.pack(files, dice.choice((tarballs.PAX, tarballs.GNU)))


def tar_gz(dice: random.Random, files: Files) -> bytes:
    """The same, compressed."""
    return tarballs.zipped(tarred(dice, files))


LAYOUTS: tuple[Callable[[random.Random, Labelled], Files], ...] = (
    folders,
    wrapped,
    splits,
    csv,
    jsonl,
    samples,
)
PACKINGS = (zipped, streamed, tarred, tar_gz)
