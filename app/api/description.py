"""What FastAPI's OpenAPI document lacks: the keys, each operation's problems, and its links."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.guard import GuardedRoute
from app.api.problems import MEDIA_TYPE, Problem
from app.errors import (
    AppError,
    BadRequestError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    NotJsonError,
    RateLimitedError,
    RequestTimeoutError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedMediaTypeError,
)

Json = dict[str, Any]
Failure = type[AppError]

ANYWHERE: tuple[Failure, ...] = (BadRequestError, InvalidError, UnavailableError, AppError)
WITH_A_KEY: tuple[Failure, ...] = (UnauthorizedError, ForbiddenError, RateLimitedError)
WITH_JSON: tuple[Failure, ...] = (
    NotJsonError,
    RequestTimeoutError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
# Sent along with these, as each class says.
HEADERS = {
    401: {"WWW-Authenticate": "How to send a key."},
    423: {"Retry-After": "Seconds to wait."},
    429: {"Retry-After": "Seconds to wait."},
    503: {"Retry-After": "Seconds to wait."},
}
_PARAMETER = re.compile(r"\{(\w+)\}")


def document(app: FastAPI, description: str) -> Json:
    """The whole document."""
    made = get_openapi(
        title=app.title, version=app.version, description=description, routes=app.routes
    )
    parts = made.setdefault("components", {})
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    parts.setdefault("schemas", {}).update(_schemas(Problem))
    parts["examples"] = {error.code: _example(error) for error in every(AppError)}
    operations = list(_operations(app, made))
    for route, operation in operations:
        _add_problems(route, operation)
        _spell_out(operation)
        if route.scope is not None:
            operation["security"] = [{"key": [route.scope.value]}]
    _add_links(operations)
    return made


def every(error: Failure) -> list[Failure]:
    """A class of errors, and all that are special cases of it."""
    return [error, *(each for child in error.__subclasses__() for each in every(child))]


def failures(route: GuardedRoute) -> set[Failure]:
    """Every class of problem that a route can answer with."""
    found = {*ANYWHERE, *route.fails}
    if route.scope is not None:
        found |= {*WITH_A_KEY}
    if _PARAMETER.search(route.path_format):
        found.add(NotFoundError)
    if route.body_field is not None:
        found |= {*WITH_JSON}
    return found


def _operations(app: FastAPI, made: Json) -> Iterator[tuple[GuardedRoute, Json]]:
    for route in app.routes:
        if isinstance(route, GuardedRoute) and route.include_in_schema:
            for method in sorted(route.methods or ()):
                yield route, made["paths"][route.path_format][method.lower()]


def _add_problems(route: GuardedRoute, operation: Json) -> None:
    answers = operation["responses"]
    answers.pop("422", None)  # FastAPI's own
    by_status: dict[int, list[Failure]] = {}
    for error in sorted(failures(route), key=lambda each: each.code):
        by_status.setdefault(error.status, []).append(error)
    for status, errors in sorted(by_status.items()):
        answers[str(status)] = _problem(status, errors)
    if "GET" in (route.methods or ()) and "200" in answers:
        answers["304"] = {"description": "What the client has is still good."}


def _problem(status: int, errors: Iterable[Failure]) -> Json:
    titles = [error.title for error in errors]
    examples = {error.code: {"$ref": f"#/components/examples/{error.code}"} for error in errors}
    schema = {"$ref": "#/components/schemas/Problem"}
    answer: Json = {
        "description": "; ".join(titles) + ".",
        "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }
    if status in HEADERS:
        answer["headers"] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in HEADERS[status].items()
        }
    return answer


def _example(error: Failure) -> Json:
    detail = (error.__doc__ or "").partition("\n")[0]
    problem = Problem(
        type=f"/docs#{error.code}",
        title=error.title,
        status=error.status,
        detail=detail,
        instance="/v1/…",
        code=error.code,
        request_id="8f14e45fceea167a",
        errors=[],
    )
    return {"summary": error.title, "value": problem.model_dump(exclude_none=True)}


def _spell_out(operation: Json) -> None:
    """Say that a parameter is needed where its endpoint says so itself; and that none is null."""
    for parameter in operation.get("parameters", []):
        schema = parameter["schema"]
        kinds = [each for each in schema.pop("anyOf", []) if each.get("type") != "null"]
        if len(kinds) == 1:
            schema = {**kinds[0], **schema}
        elif kinds:
            schema["anyOf"] = kinds
        if schema.pop("x-required", False):
            parameter["required"] = True
        parameter["schema"] = schema


def _add_links(operations: list[tuple[GuardedRoute, Json]]) -> None:
    """From what makes or lists things to what can be done with one of them."""
    for source, operation in operations:
        for status, pointer in (("201", "/id"), ("200", "/data/0/id")):
            answer = operation["responses"].get(status)
            if answer is None or "{" in source.path_format:
                continue
            if (status == "201") != ("POST" in (source.methods or ())):
                continue
            links = dict(_links(source.path_format, pointer, operations))
            if links:
                answer["links"] = links


def _links(
    path: str, pointer: str, operations: list[tuple[GuardedRoute, Json]]
) -> Iterator[tuple[str, Json]]:
    for route, operation in operations:
        rest = route.path_format.removeprefix(f"{path}/")
        names = _PARAMETER.findall(rest)
        if rest != route.path_format and rest.startswith("{") and len(names) == 1:
            name = operation["operationId"]
            parameters = {names[0]: f"$response.body#{pointer}"}
            yield route.name, {"operationId": name, "parameters": parameters}


def _schemas(model: type[Problem]) -> Json:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), model.__name__: schema}
