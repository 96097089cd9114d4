"""What a training step is given: which images, in which views, and how they look.

Step `s` is a pure function of (seed, s). A resumed run, or one spread over processes, sees the
batches of the uninterrupted one, and one that prepares them ahead those of one that doesn't.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tdmr.data.pixels import Pixels
from tdmr.views import Views, to_device

AHEAD = 2  # batches prepared before they are asked for
RESIDENT_SHARE = 0.5  # of a GPU's free memory that images may take; a student needs the rest
UPLOAD_BYTES = 64 << 20  # in one copy


@dataclass(frozen=True)
class TrainingSet:
    """The images to train on: `pixels` (n, 3, side, side) and `labels` (n,), and their views."""

    pixels: Pixels
    labels: Tensor
    classes: int
    views: Views


@dataclass(frozen=True)
class Batch:
    """Which views (n,), and their classes (n, classes); and how they look.

    `pixels` (n, 3, side, side) are those of the rows that this process forwards, which are all
    unless there are several processes.
    """

    images: npt.NDArray[np.int64]
    views: npt.NDArray[np.int64]
    pixels: Tensor
    labels: Tensor


Shuffle = Callable[[int], npt.NDArray[np.int64]]


def shuffled(count: int, seed: int, number: int) -> npt.NDArray[np.int64]:
    """The order of `count` images in pass `number`: (count,)."""
    return np.random.default_rng((seed, number)).permutation(count)


def order(
    count: int, batch_size: int, seed: int, step: int, shuffle: Shuffle | None = None
) -> npt.NDArray[np.int64]:
    """Positions of step `step` in an endless run of shuffles of `count` images: (batch, 2).

    Column 0 is the image, column 1 the number of the pass that it belongs to. `shuffle` gives the
    order of a pass, for callers that keep it: to draw it takes longer the more images there are.
    """
    shuffle = shuffle or partial(shuffled, count, seed)
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    passes = places // count
    images = np.empty_like(places)
    for number in np.unique(passes):
        chosen = passes == number
        images[chosen] = shuffle(int(number))[places[chosen] % count]
    return np.stack([images, passes], axis=1)


class Feed:
    """The batches of a training, on `device`; the next ones are prepared on a thread meanwhile.

    `rows` are those of each batch that are rendered. With `ahead` 0 there is no thread. A context
    manager, at whose end the thread has ended.
    """

    def __init__(
        self,
        data: TrainingSet,
        *,
        batch_size: int,
        steps: int,
        stored_views: bool,
        seed: int,
        device: torch.device,
        rows: slice = slice(None),
        ahead: int = AHEAD,
    ) -> None:
        self._data = data
        self._batch_size = batch_size
        self._steps = steps
        self._stored_views = stored_views
        self._seed = seed
        self._device = device
        self._rows = rows
        self._ahead = ahead
        self._shuffle = lru_cache(maxsize=2)(partial(shuffled, len(data.pixels), seed))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed") if ahead else None
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda" and ahead:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's own has no types
        self._pending: dict[int, Future[_Ready]] = {}

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self._pending.clear()
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def batch(self, step: int) -> Batch:
        """The batch of one step. Raises whatever went wrong while it was prepared."""
        if self._thread is None:
            return self._make(step).batch
        for number in range(step, min(step + 1 + self._ahead, max(self._steps, step + 1))):
            if number not in self._pending:
                self._pending[number] = self._thread.submit(self._make, number)
        return self._pending.pop(step).result().here(self._device)

    @cached_property
    def _pixels(self) -> Pixels | Tensor:
        """On a GPU that has room for them, the images are held there."""
        pixels = self._data.pixels
        if self._device.type != "cuda":
            return pixels
        free, _ = torch.cuda.mem_get_info(self._device)
        return uploaded(pixels, self._device) if fits(pixels.nbytes, free) else pixels

    def _make(self, step: int) -> _Ready:
        if self._stream is None:
            return _Ready(self._prepare(step), None)
        with torch.cuda.stream(self._stream):
            batch = self._prepare(step)
            return _Ready(batch, self._stream.record_event())

    def _prepare(self, step: int) -> Batch:
        data, device = self._data, self._device
        pairs = order(len(data.pixels), self._batch_size, self._seed, step, self._shuffle)
        images, passes = np.ascontiguousarray(pairs.T)
        count = data.views.count
        # Fresh views begin behind the stored ones, so that no method sees the other's.
        views = passes % count if self._stored_views else passes + count
        own = images[self._rows], views[self._rows]
        pixels = data.views.render(self._pixels, *own, device, torch.channels_last)
        labels = data.views.soft_labels(data.labels, data.classes, images, views)
        return Batch(images, views, pixels, to_device(labels, device))


@dataclass(frozen=True)
class _Ready:
    """A batch, and what a stream must wait for before it reads it."""

    batch: Batch
    event: torch.cuda.Event | None

    def here(self, device: torch.device) -> Batch:
        """The batch, fit for the current stream."""
        if self.event is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(self.event)
            for tensor in (self.batch.pixels, self.batch.labels):
                tensor.record_stream(stream)
        return self.batch


def fits(needed: int, free: int) -> bool:
    """Whether `needed` bytes of images may stay on a device that has `free` bytes."""
    return needed <= RESIDENT_SHARE * free


def uploaded(pixels: Pixels, device: torch.device) -> Tensor:
    """The images on `device`, read from their file in pieces: uint8, of the same shape."""
    held = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
    rows = max(1, UPLOAD_BYTES // max(1, pixels[:1].nbytes))
    for start in range(0, len(pixels), rows):
        held[start : start + rows] = torch.from_numpy(np.array(pixels[start : start + rows]))
    return held


def clean_batches(pixels: Pixels, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Images as they are, in order: (n, 3, side, side) in [0, 1]."""
    for start in range(0, len(pixels), batch_size):
        raw = np.array(pixels[start : start + batch_size])
        yield torch.from_numpy(raw).to(device).float().div_(255)
