"""What can go wrong in a distillation, as typed errors that carry their own advice."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

# torch has no common type for a lack of memory; the words of it and its libraries are all there is.
# The last ones are oneDNN's, whose "primitive descriptor" is another matter.
NO_MEMORY = re.compile(
    "out of memory|can't allocate memory|Cannot allocate memory|bad_alloc|ALLOC_FAILED"
    "|could not (create|execute) a primitive$"
)


class Failure(BaseModel):
    """Why a job ended badly, as data: what a program or a person needs to act on it.

    `change` is what to change in the order, where that is known, as a JSON merge patch (RFC 7396).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    user_error: bool
    stage: str | None = None
    detail: str
    retryable: bool = False
    suggestion: str | None = None
    change: dict[str, Any] | None = None
    log: list[str] = []


class TdmrError(Exception):
    """Base of every error that this package raises on purpose."""

    code = "internal"
    user_error = False
    retryable = False

    def __init__(
        self, detail: str, *, suggestion: str | None = None, change: dict[str, Any] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.suggestion = suggestion
        self.change = change

    def __str__(self) -> str:
        return f"{self.detail} {self.suggestion}" if self.suggestion else self.detail

    def failure(self, stage: str | None = None) -> Failure:
        """This error as the record that a job keeps."""
        return Failure(
            code=self.code,
            user_error=self.user_error,
            stage=stage,
            detail=self.detail,
            retryable=self.retryable,
            suggestion=self.suggestion,
            change=self.change,
        )


class UnknownModelError(TdmrError):
    """A model name that timm doesn't know, or a model without intermediate features."""

    code = "unknown_model"
    user_error = True


class ModelWeightsError(TdmrError):
    """Weights that can't be fetched, or that don't fit the architecture."""

    code = "model_weights"
    user_error = True


class DatasetError(TdmrError):
    """A dataset that can't be trained on as it is."""

    code = "dataset"
    user_error = True


class OptionsError(TdmrError):
    """Options that contradict each other, the models or the dataset."""

    code = "options"
    user_error = True


class NonFiniteLossError(TdmrError):
    """A loss became infinite or not a number, at a peak learning rate of `rate`."""

    code = "non_finite_loss"
    user_error = True

    def __init__(self, stage: str, step: int, parts: dict[str, float], rate: float) -> None:
        named = ", ".join(f"{name}={value:.4g}" for name, value in parts.items())
        group = stage if stage in ("input", "reprogram") else "training"
        lower = float(f"{rate / 3:.3g}")
        super().__init__(
            f"The loss of stage {stage!r} stopped being finite at step {step} ({named}).",
            suggestion=f"Lower options.{group}.learning_rate from {rate:g}, to {lower:g} to begin "
            "with.",
            change={"options": {group: {"learning_rate": lower}}},
        )


class OutOfMemoryError(TdmrError):
    """A stage that doesn't fit into the memory of the device, or of the machine."""

    code = "out_of_memory"
    user_error = True

    def __init__(
        self, stage: str, *, suggestion: str | None = None, change: dict[str, Any] | None = None
    ) -> None:
        super().__init__(
            f"Stage {stage!r} doesn't fit into the device's memory.",
            suggestion=suggestion or LESS_MEMORY.get(stage, SMALLER_STUDENT),
            change=change,
        )
        self.stage = stage


SMALLER_STUDENT = "Choose a smaller options.image_size, or a smaller student."
LESS_MEMORY = {
    "prepare": "Choose a smaller foundation or student, or a smaller options.input.batch_size.",
    "cache": "Choose a smaller options.foundation_size, or a smaller foundation.",
    "reprogram": "Lower options.reprogram.taps, or choose a smaller foundation.",
}


class DiskFullError(TdmrError):
    """No room for decoded images, features, a checkpoint or the result."""

    code = "disk_full"
    retryable = True

    def __init__(self, detail: str, *, suggestion: str = "Free some space there.") -> None:
        super().__init__(detail, suggestion=suggestion)


class DatasetWarning(UserWarning):
    """A dataset that can be trained on, but that says less than its owner may think."""


class CheckpointError(TdmrError):
    """A checkpoint that can't be gone on from."""

    code = "checkpoint"


class TrainedResultError(TdmrError):
    """What was trained can't be packaged: files are missing or damaged."""

    code = "trained_result"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, suggestion="Fetch its files again, or train again.")


class NothingToRescueError(TdmrError):
    """A job that was stopped before there was a student."""

    code = "nothing_to_rescue"

    def __init__(self) -> None:
        super().__init__(
            "There is no student to rescue: stage 2 had not begun, or had no checkpoint yet.",
            suggestion="Start the job again.",
        )


class Stopped(Exception):  # noqa: N818 - an ending, not an error
    """A run that was asked to stop, and did, behind a durable checkpoint where it keeps one."""

    def __init__(self, stage: str, step: int) -> None:
        super().__init__(f"Stopped in stage {stage!r} before step {step}.")
        self.stage = stage
        self.step = step


def is_disk_full(error: BaseException) -> bool:
    """Whether `error` says that a disk, or a quota on it, is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # Safetensors has an error of its own, with the system's number in its words.
    return f"(os error {errno.ENOSPC})" in str(error) or f"(os error {errno.EDQUOT})" in str(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that a device, or this machine, has no memory left."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError):
        return NO_MEMORY.search(str(error)) is not None
    return isinstance(error, MemoryError)


@contextmanager
def room_for(
    what: str, folder: Path, needed: int | None = None, *, hint: str = ""
) -> Iterator[None]:
    """Turn a full disk into DiskFullError: no room in `folder` for `what`, of `needed` bytes.

    The block must have removed what it had half written by the time it is left.
    """
    try:
        yield
    except Exception as error:  # libraries wrap a full disk in errors of their own
        if not is_disk_full(error):
            raise
        there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        sizes = f"{shutil.disk_usage(there).free:,} bytes are free"
        if needed is not None:
            sizes = f"{needed:,} bytes are needed, {sizes}"
        raise DiskFullError(
            f"There is no room in {str(folder)!r} for {what}: {sizes}.",
            suggestion=f"Free some space there{hint}.",
        ) from error


def near_matches(name: str, known: Any) -> str:
    """The known names closest to `name`, as the tail of an error message."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=5, cutoff=0.5)
    return f"Did you mean {', '.join(close)}?" if close else "No known name is close to it."
