"""The gallery: a dataset's images in order, with thumbnails, in one file read by place.

    thumbnails (JPEG), one behind the other
    a line of JSON for each image
    a table: for each image where its thumbnail and its line lie
    the footer: what this is, and how many images there are

The order is by split, class and source, so that the images of one class in one split are a run.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tdmr.data.index import SPLITS, IndexedImage

MAGIC = b"TDMRGAL1"
_ROW = struct.Struct("<QLQL")  # thumbnail: start, length; line: start, length
_FOOTER = struct.Struct("<8sQ")


class Thumbnails:
    """Thumbnails on their way into a gallery: kept in a file until the order is known."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}

    def add(self, name: str, thumbnail: bytes) -> None:
        """Keep the thumbnail of the image `name`."""
        self._places[name] = self._file.tell(), len(thumbnail)
        self._file.write(thumbnail)

    def get(self, name: str) -> bytes:
        """The thumbnail of the image `name`. Nothing can be added after the first call."""
        start, length = self._places[name]
        self._file.flush()
        return os.pread(self._file.fileno(), length, start)


def write(path: Path, images: Iterable[IndexedImage], thumbnails: Thumbnails) -> None:
    """Write the gallery of `images`, in their order."""
    table, lines = bytearray(), []
    place = 0
    with path.open("wb") as out:
        for image in images:
            small = thumbnails.get(image.file)
            line = json.dumps(_described(image), ensure_ascii=False).encode() + b"\n"
            lines.append((place, len(small), line))
            out.write(small)
            place += len(small)
        for start, length, line in lines:
            table += _ROW.pack(start, length, place, len(line))
            out.write(line)
            place += len(line)
        out.write(table)
        out.write(_FOOTER.pack(MAGIC, len(lines)))


def _described(image: IndexedImage) -> dict[str, Any]:
    return {
        "split": image.split,
        "label": image.label,
        "source": image.source,
        "sha256": image.sha256,
        "width": image.width,
        "height": image.height,
    }


def runs(counts: dict[str, dict[str, int]], split: str | None, label: str | None) -> list[range]:
    """Where the images of a split, or a class, or both lie; `counts` are {split: {class: images}}.

    Adjoining runs are one.
    """
    found: list[range] = []
    place = 0
    for name in SPLITS:
        for each, count in sorted(counts.get(name, {}).items()):
            stop = place + count
            if split in (None, name) and label in (None, each):
                joined = bool(found) and found[-1].stop == place
                start = found.pop().start if joined else place
                found.append(range(start, stop))
            place = stop
    return found


@dataclass(frozen=True)
class Row:
    """One image of a gallery; `number` is its place."""

    number: int
    split: str
    label: str
    source: str
    sha256: str
    width: int
    height: int


class Gallery:
    """A gallery of `size` bytes, of which `read` gives those from a start to a stop.

    Raises ValueError for another file.
    """

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        footer = read(max(0, size - _FOOTER.size), size)
        magic, self.count = _FOOTER.unpack(footer) if len(footer) == _FOOTER.size else (b"", 0)
        self._table = size - _FOOTER.size - self.count * _ROW.size
        if magic != MAGIC or self._table < 0:
            raise ValueError("not a gallery")

    def rows(self, start: int, stop: int) -> list[Row]:
        """The images from `start` up to, and without, `stop`."""
        places = self._places(start, min(stop, self.count))
        if not places:
            return []
        first = places[0][2]
        lines = self._read(first, places[-1][2] + places[-1][3]).splitlines()
        return [Row(start + n, **json.loads(line)) for n, line in enumerate(lines)]

    def thumbnail(self, number: int) -> bytes | None:
        """The JPEG bytes of one image's thumbnail, or None where there is no such image."""
        places = self._places(number, number + 1) if 0 <= number < self.count else []
        return self._read(places[0][0], places[0][0] + places[0][1]) if places else None

    def _places(self, start: int, stop: int) -> list[tuple[int, int, int, int]]:
        wanted = max(0, stop - start) * _ROW.size
        place = self._table + start * _ROW.size
        return list(_ROW.iter_unpack(self._read(place, place + wanted)))


def page(gallery: Gallery, wanted: list[range], start: int, limit: int) -> list[Row]:
    """The first `limit` images in the wanted runs from number `start` on."""
    rows: list[Row] = []
    for run in wanted:
        first = max(run.start, start)
        rows += gallery.rows(first, min(run.stop, first + limit - len(rows)))
        if len(rows) == limit:
            break
    return rows
