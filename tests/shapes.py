"""Images drawn at test time: filled shapes of random place, size and colour."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw

CLASSES = ("circle", "cross", "square")


def draw(label: str, seed: int, size: int = 40) -> Image.Image:
    """One shape on a dark ground, a function of `label` and `seed`."""
    rng = random.Random(f"{label}:{seed}")
    image = Image.new("RGB", (size, size), tuple(rng.randrange(60) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    colour = tuple(rng.randrange(140, 256) for _ in range(3))
    radius = rng.uniform(0.2, 0.35) * size
    x, y = (rng.uniform(radius, size - radius) for _ in range(2))
    if label == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif label == "square":
        pen.rectangle((x - radius, y - radius, x + radius, y + radius), fill=colour)
    else:
        width = max(2, round(radius / 2))
        pen.line((x - radius, y, x + radius, y), fill=colour, width=width)
        pen.line((x, y - radius, x, y + radius), fill=colour, width=width)
    return image


def draw_dataset(folder: Path, counts: dict[str, int]) -> None:
    """Write SPLIT/CLASS/N.png below `folder`; no two images are alike."""
    for offset, (split, count) in enumerate(counts.items()):
        for label in CLASSES:
            target = folder / split / label
            target.mkdir(parents=True)
            for number in range(count):
                draw(label, 1000 * offset + number).save(target / f"{number}.png")


def zip_folder(folder: Path) -> bytes:
    """A zip archive of everything below `folder`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder).as_posix())
    return buffer.getvalue()
