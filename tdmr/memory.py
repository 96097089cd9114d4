"""What to do when a training runs out of memory: try which batch fits, and say so."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from tdmr.errors import SMALLER_STUDENT, OutOfMemoryError, is_out_of_memory

LEAST_BATCH = 2
# A training's memory differs a little from one process to the next; by less than that of an eighth
# of its images.
SPARE = 8


def out_of_memory(stage: str, batch_size: int, rehearse: Callable[[int], None]) -> OutOfMemoryError:
    """The error of a training that doesn't fit with `batch_size` images, naming a number that does.

    `rehearse` runs the training's most demanding steps with the number it is given. To be called
    behind the handler of the first error: as long as that lives, its traceback holds the memory.
    """
    fits = largest_fitting(batch_size, rehearse)
    if fits is None:
        return OutOfMemoryError(
            stage, suggestion=f"No smaller batch fits either. {SMALLER_STUDENT}"
        )
    return OutOfMemoryError(
        stage,
        suggestion=f"Lower options.training.batch_size from {batch_size} to {fits}, which fits.",
        change={"options": {"training": {"batch_size": fits}}},
    )


def largest_fitting(batch_size: int, rehearse: Callable[[int], None]) -> int | None:
    """The largest of batch_size / 2, / 4 … 2 that there is memory for, with room to spare; or None.

    `rehearse` is asked for an eighth more images than each. Raises whatever else goes wrong in it.
    """
    fits = None
    # From the smallest on: what a failure leaves is in pieces, and would be held against the next.
    for size in reversed(_halves(batch_size)):
        gc.collect()
        torch.cuda.empty_cache()
        try:
            rehearse(size + max(size // SPARE, 1))
        except Exception as error:  # a lack of memory has many types
            if not is_out_of_memory(error):
                raise
            break
        fits = size
    return fits


def _halves(batch_size: int) -> list[int]:
    sizes = []
    while (batch_size := batch_size // 2) >= LEAST_BATCH:
        sizes.append(batch_size)
    return sizes
