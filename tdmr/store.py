"""A content-addressed store of arrays in memory-mapped files.

An entry is named by what it was computed from, so that a later student, a retry or a sweep finds
it. It is written in a folder of its own and renamed into place when complete: a reader never sees
half of one, and two processes that make the same entry agree.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tdmr.errors import DiskFullError

Array = npt.NDArray[Any]


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

        Raises DiskFullError when there is no room; nothing of the entry stays behind then.
        """
        staged = self.root / f".{uuid.uuid4().hex}"
        try:
            staged.mkdir(parents=True)
            _reserve(staged, shape, dtype)
            array = np.lib.format.open_memmap(
                staged / "array.npy", mode="w+", dtype=np.dtype(dtype), shape=shape
            )
            fill(array)
            array.flush()
            del array
            (staged / "ingredients.json").write_text(json.dumps(ingredients, indent=1))
            self._publish(staged, self._path(ingredients))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise DiskFullError(
                    f"There is no room in {self.root} to cache features."
                ) from error
            raise
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        found = self.find(ingredients)
        assert found is not None
        return found

    def drop(self, ingredients: dict[str, Any]) -> None:
        """Forget an entry that turned out to be wrong."""
        shutil.rmtree(self._path(ingredients), ignore_errors=True)

    def _path(self, ingredients: dict[str, Any]) -> Path:
        return self.root / self.key(ingredients)

    @staticmethod
    def _publish(staged: Path, target: Path) -> None:
        try:
            staged.rename(target)
        except OSError as error:
            # Somebody published the same content first: theirs is as good as ours.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _reserve(folder: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    """Raise ENOSPC now: a full disk under a memory map is a bus error, not an exception."""
    needed = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if shutil.disk_usage(folder).free < needed + (64 << 20):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
