"""The server's errors: one class each, one sentence each, turned into problem+json in one place."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class ErrorItem(BaseModel):
    """One finding inside a problem: where (a JSON pointer), what, and what is allowed."""

    model_config = ConfigDict(extra="forbid")

    pointer: str
    code: str
    detail: str
    allowed: list[str] | None = None


class AppError(Exception):
    """Base of every error that a request can be answered with."""

    status = 500
    code = "internal"
    title = "Something went wrong on our side"
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, detail: str, errors: list[ErrorItem] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors or []


class BadRequestError(AppError):
    """The request can't be read."""

    status, code, title = 400, "bad_request", "The request can't be read"


class UnauthorizedError(AppError):
    """No access key, or one that isn't valid."""

    status, code, title = 401, "unauthorized", "A valid access key is needed"
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": 'Bearer realm="tdmr"'}


class ForbiddenError(AppError):
    """A valid key without the needed scope."""

    status, code, title = 403, "forbidden", "This key may not do that"


class NotFoundError(AppError):
    """Nothing here, or nothing of yours."""

    status, code, title = 404, "not_found", "There is no such thing"


class ConflictError(AppError):
    """The thing is in a state that doesn't allow this."""

    status, code, title = 409, "conflict", "Its state doesn't allow that"


class TooLargeError(AppError):
    """The body is over its cap."""

    status, code, title = 413, "too_large", "The body is too large"


class UnsupportedMediaTypeError(AppError):
    """The body is of a type this route doesn't take."""

    status, code, title = 415, "unsupported_media_type", "This type of body isn't taken here"


class InvalidError(AppError):
    """The request can be read, and is wrong."""

    status, code, title = 422, "invalid", "The request isn't valid"


class DiskFullError(AppError):
    """No room to store the upload."""

    status, code, title = 507, "insufficient_storage", "There is no room to store this"
