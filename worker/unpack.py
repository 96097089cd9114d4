"""Unpacks a canonical dataset: made by this service, and yet read with care."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath


class UnpackError(Exception):
    """The archive isn't a canonical dataset."""


def unpack(archive: Path, target: Path) -> None:
    """Write `index.json` and `images/*` below `target`. Raises UnpackError for anything else."""
    (target / "images").mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as source:
            for entry in source.infolist():
                place = target / _checked(entry.filename)
                with source.open(entry) as stream, place.open("xb") as file:
                    shutil.copyfileobj(stream, file, 1 << 20)
    except (zipfile.BadZipFile, FileExistsError) as error:
        raise UnpackError(f"not a canonical dataset: {error}") from error
    if not (target / "index.json").exists():
        raise UnpackError("not a canonical dataset: it has no index.json")


def _checked(name: str) -> str:
    """The entry's name, if it's one that this service gives."""
    parts = PurePosixPath(name).parts
    image = len(parts) == 2 and parts[0] == "images" and parts[1] not in ("..", ".")
    if (name == "index.json" or image) and name == "/".join(parts) and "\0" not in name:
        return name
    raise UnpackError(f"not a canonical dataset: {name!r}")
