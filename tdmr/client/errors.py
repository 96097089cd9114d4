"""What the client raises when the server says no: one class for each thing a program acts on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError


class Item(BaseModel):
    """One finding inside a refusal: where (a JSON pointer), what, and what is allowed."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    pointer: str = ""
    code: str = ""
    detail: str = ""
    allowed: list[str] | None = None


class ApiError(Exception):
    """An answer of 4xx or 5xx: `status`, and the problem document (RFC 9457) as `problem`.

    `retry_after` is how many seconds the server asks to wait, where it does.
    """

    def __init__(
        self, status: int, problem: dict[str, Any], retry_after: float | None = None
    ) -> None:
        self.status = status
        self.problem = problem
        self.retry_after = retry_after
        found = "".join(f"\n  {item.pointer}: {item.detail}" for item in self.errors)
        super().__init__(f"{status} {self.code}: {problem.get('detail', '')}{found}")

    @property
    def code(self) -> str:
        """What it is, for programs: docs of the service list every code."""
        return str(self.problem.get("code", ""))

    @property
    def errors(self) -> list[Item]:
        """Every finding, with a pointer into what was sent."""
        rows = self.problem.get("errors")
        rows = rows if isinstance(rows, list) else []
        return [Item.model_validate(row) for row in rows if isinstance(row, dict)]


class UnauthorizedError(ApiError):
    """401: no access key, or one that isn't valid."""


class ForbiddenError(ApiError):
    """403: the key lacks the scope that is named in `problem`."""


class NotFoundError(ApiError):
    """404: there is no such thing, or it is somebody else's."""


class ConflictError(ApiError):
    """409: the state of the thing doesn't allow that."""


class TooLargeError(ApiError):
    """413: more than the server takes."""


class InvalidError(ApiError):
    """422: the request is wrong; `errors` says where."""


class RateLimitedError(ApiError):
    """429: a limit or a quota is reached; `retry_after` says when to come again."""


class UnavailableError(ApiError):
    """502, 503 or 504: the service, or what stands before it, can't do that right now."""


class DigestError(ValueError):
    """What arrived, here or there, isn't what was sent."""


class UnexpectedAnswerError(ApiError):
    """An answer that isn't the service's, or is of a service that this client is too old for."""


CLASSES: dict[int, type[ApiError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    413: TooLargeError,
    422: InvalidError,
    429: RateLimitedError,
    **dict.fromkeys((502, 503, 504), UnavailableError),
}


def error_of(response: httpx.Response) -> ApiError:
    """The refusal that a response, whose body was read, is."""
    try:
        problem = response.json()
    except ValueError:  # a proxy's page
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": response.text[:500]}
    kind = CLASSES.get(response.status_code, ApiError)
    return kind(response.status_code, problem, retry_after(response))


def retry_after(response: httpx.Response) -> float | None:
    """What Retry-After (RFC 9110, 10.2.3) says, in seconds; None without it, or of nonsense.

    A date is compared with the server's own clock where the answer tells it.
    """
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    moment = _moment(value)
    if moment is None:
        return None
    now = _moment(response.headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (moment - now).total_seconds())


def _moment(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@contextmanager
def expected(response: httpx.Response) -> Iterator[None]:
    """Make of an answer that the block can't read an UnexpectedAnswerError."""
    try:
        yield
    except ValueError as error:  # pydantic's and json's are such
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
        detail = f"The answer of {response.url} isn't what this client reads: {reason}."
        raise UnexpectedAnswerError(response.status_code, {"detail": detail}) from error
