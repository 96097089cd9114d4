"""What can go wrong in a distillation, as typed errors that carry their own advice."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class Failure(BaseModel):
    """Why a job ended badly, as data: what a program or a person needs to act on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    user_error: bool
    stage: str | None = None
    detail: str
    retryable: bool = False
    suggestion: str | None = None
    log: list[str] = []


class TdmrError(Exception):
    """Base of every error that this package raises on purpose."""

    code = "internal"
    user_error = False
    retryable = False

    def __init__(self, detail: str, *, suggestion: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.suggestion = suggestion

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
    """A loss became infinite or not a number."""

    code = "non_finite_loss"
    user_error = True

    def __init__(self, stage: str, step: int, parts: dict[str, float]) -> None:
        named = ", ".join(f"{name}={value:.4g}" for name, value in parts.items())
        group = stage if stage in ("input", "reprogram") else "training"
        super().__init__(
            f"The loss of stage {stage!r} stopped being finite at step {step} ({named}).",
            suggestion=f"Lower options.{group}.learning_rate, by a factor of 3 to begin with.",
        )


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


@contextmanager
def room_for(
    what: str, folder: Path, needed: int | None = None, *, hint: str = ""
) -> Iterator[None]:
    """Turn a full disk into DiskFullError: no room in `folder` for `what`, of `needed` bytes.

    The block must have removed what it had half written by the time it is left.
    """
    try:
        yield
    except Exception as error:
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
