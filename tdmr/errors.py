"""What can go wrong in a distillation, as typed errors that carry their own advice."""

from __future__ import annotations

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
        super().__init__(
            f"The loss of stage {stage!r} stopped being finite at step {step} ({named}).",
            suggestion="Lower options.training.learning_rate, by a factor of 3 to begin with.",
        )


class DiskFullError(TdmrError):
    """No room for the view cache or the result."""

    code = "disk_full"
    retryable = True

    def __init__(self, detail: str) -> None:
        super().__init__(detail, suggestion="Free some space, or lower options.views.count.")


def near_matches(name: str, known: Any) -> str:
    """The known names closest to `name`, as the tail of an error message."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=5, cutoff=0.5)
    return f"Did you mean {', '.join(close)}?" if close else "No known name is close to it."
