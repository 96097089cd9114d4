"""Problems (RFC 9457): the one place where an error becomes an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from sqlalchemy import exc
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.errors import (
    AppError,
    BadRequestError,
    DiskFullError,
    ErrorItem,
    InvalidError,
    MethodNotAllowedError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)

MEDIA_TYPE = "application/problem+json"
MAX_ITEMS = 100

log = structlog.get_logger(__name__)


class Problem(BaseModel):
    """What every answer of 400 and above says."""

    model_config = ConfigDict(extra="forbid")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[ErrorItem] = []


def of(error: AppError, path: str, request_id: str) -> Problem:
    """`error` as it is told."""
    return Problem(
        type=f"/docs#{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        instance=path,
        code=error.code,
        request_id=request_id,
        errors=error.errors[:MAX_ITEMS],
    )


def respond(error: AppError, path: str, request_id: str) -> Response:
    """The answer that tells of `error`."""
    return Response(
        of(error, path, request_id).model_dump_json(exclude_none=True),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers=error.headers,
    )


def install(app: FastAPI) -> None:
    """Answer every error that the app knows with a problem."""
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(OperationalError, _database_error)
    app.add_exception_handler(exc.TimeoutError, _pool_used_up)


def _answer(request: Request, error: AppError) -> Response:
    return respond(error, request.url.path, request.state.request_id)


async def _app_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)
    return _answer(request, error)


async def _http_exception(request: Request, error: Exception) -> Response:
    """What the framework says by itself: unknown paths and wrong methods."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__ or error.__context__, ClientDisconnect):
        raise error
    if error.status_code == 405:
        return _answer(request, _wrong_method(request))
    known: dict[int, AppError] = {
        404: NotFoundError("There is nothing at this address. /docs lists what there is."),
        413: TooLargeError("The body is too large."),
    }
    return _answer(request, known.get(error.status_code) or BadRequestError(error.detail))


def _wrong_method(request: Request) -> MethodNotAllowedError:
    path = request.scope["path"]
    routes = [each for each in request.app.routes if isinstance(each, APIRoute)]
    # The first that matches says what it is: a word may stand where another route has an id.
    what = next(each.path_format for each in routes if each.path_regex.match(path))
    methods = {
        method for each in routes if each.path_format == what for method in each.methods or ()
    }
    if "GET" in methods:
        methods.add("HEAD")
    allowed = ", ".join(sorted(methods))
    return MethodNotAllowedError(f"This address takes {allowed}.", headers={"Allow": allowed})


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    items = [_item(request, found) for found in error.errors()]
    return _answer(request, InvalidError("The request has values that can't be taken.", items))


async def _database_error(request: Request, error: Exception) -> Response:
    """A database that is full, locked or away: never the caller's fault, and not a bug here."""
    text = str(getattr(error, "orig", error))
    log.error("database_error", error=text, request_id=request.state.request_id)
    if "disk is full" in text or "No space left" in text:
        return _answer(request, DiskFullError("The server's disk is full. Nothing was stored."))
    return _answer(request, UnavailableError("The database doesn't answer. Try again."))


async def _pool_used_up(request: Request, _: Exception) -> Response:
    log.error("database_pool_used_up", request_id=request.state.request_id)
    return _answer(request, UnavailableError("Every connection to the database is in use."))


def _item(request: Request, found: dict[str, Any]) -> ErrorItem:
    """One of pydantic's findings, without the value that it was found in."""
    where, *path = found["loc"]
    steps = path if where == "body" else [where, *path]
    code = {"extra_forbidden": "unknown_field", "missing": "missing"}.get(
        found["type"], found["type"]
    )
    unknown = code == "unknown_field"
    return ErrorItem(
        pointer=pointer(steps),
        code=code,
        detail="There is no such field here." if unknown else found["msg"],
        allowed=_fields(request, path[:-1]) if unknown else None,
    )


def pointer(steps: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901)."""
    escaped = (str(step).replace("~", "~0").replace("/", "~1") for step in steps)
    return "".join(f"/{step}" for step in escaped)


def _fields(request: Request, path: Sequence[str | int]) -> list[str] | None:
    """The names that the body's model has at `path`."""
    route = request.scope.get("route")
    field = route.body_field if isinstance(route, APIRoute) else None
    model: Any = field.field_info.annotation if field is not None else None
    for step in path:
        known = getattr(model, "model_fields", {}).get(step)
        model = known.annotation if known is not None else None
    return sorted(getattr(model, "model_fields", {})) or None
