"""A content-addressed store of arrays in memory-mapped files.

An entry is named by what it was computed from, so that a later student, a retry or a sweep finds
it. It is written in a folder of its own and renamed into place when complete: a reader never sees
half of one, and two processes that make the same entry agree.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tdmr.errors import room_for

Array = npt.NDArray[Any]
# What a filesystem without the call answers; the free space was looked at before.
CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
STAGED = re.compile(r"\.[0-9a-f]{32}")
ABANDONED_SECONDS = 86_400  # without a write to it
HINTS = {
    "features": ", or lower options.views.count",
    "pixels": ", or lower options.image_size",
}


class ArrayStore:
    """Arrays under `root`, by the hash of the ingredients they were made from."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def key(ingredients: dict[str, Any]) -> str:
        """SHA-256 of the ingredients, as canonical JSON."""
        text = json.dumps(ingredients, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def find(self, ingredients: dict[str, Any]) -> Array | None:
        """The stored array, memory-mapped and read-only, or None."""
        path = self._path(ingredients) / "array.npy"
        return np.load(path, mmap_mode="r") if path.exists() else None

    def make(
        self,
        ingredients: dict[str, Any],
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        fill: Callable[[Array], None],
    ) -> Array:
        """Let `fill` write a new array, publish it, and give it back memory-mapped.

        Raises DiskFullError when there is no room, before `fill` is called where the filesystem
        can say so; nothing of the entry stays behind then.
        """
        needed = math.prod(shape) * np.dtype(dtype).itemsize
        what = str(ingredients.get("what", "an array"))
        with room_for(what, self.root, needed, hint=HINTS.get(what, "")), self._staged() as staged:
            (staged / "ingredients.json").write_text(json.dumps(ingredients, indent=1))
            _require_free(staged, needed)
            array = np.lib.format.open_memmap(
                staged / "array.npy", mode="w+", dtype=np.dtype(dtype), shape=shape
            )
            _reserve(staged / "array.npy")
            fill(array)
            array.flush()
            del array
            self._publish(staged, self._path(ingredients))
        found = self.find(ingredients)
        assert found is not None
        return found

    def drop(self, ingredients: dict[str, Any]) -> None:
        """Forget an entry that turned out to be wrong."""
        shutil.rmtree(self._path(ingredients), ignore_errors=True)

    def _path(self, ingredients: dict[str, Any]) -> Path:
        return self.root / self.key(ingredients)

    @contextmanager
    def _staged(self) -> Iterator[Path]:
        """A folder that is gone afterwards, unless it was renamed."""
        self._sweep()
        staged = self.root / f".{uuid.uuid4().hex}"
        try:
            staged.mkdir(parents=True)
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what processes that were killed had begun."""
        for staged in self.root.glob(".*"):
            if not STAGED.fullmatch(staged.name):
                continue
            with suppress(FileNotFoundError):  # it has just been published
                touched = max(path.stat().st_mtime for path in (staged, *staged.iterdir()))
                if time.time() - touched > ABANDONED_SECONDS:
                    shutil.rmtree(staged, ignore_errors=True)

    @staticmethod
    def _publish(staged: Path, target: Path) -> None:
        try:
            staged.rename(target)
        except OSError as error:
            # Somebody published the same content first: theirs is as good as ours.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _require_free(folder: Path, needed: int) -> None:
    """Raise ENOSPC where free space is too little to begin with."""
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reserve(path: Path) -> None:
    """Give the whole file its blocks now, or raise ENOSPC.

    A full disk under a memory map is a bus error that kills the process, not an exception; and
    others write to the disk as well.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in CANNOT_RESERVE:
                raise
