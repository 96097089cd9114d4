"""Deny by default: a route declares the scope it needs, or that it is public, or can't be made.

The guard runs before anything of the request is read: key first, then path, query and body.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from app.access import keys
from app.access.keys import Caller
from app.access.scopes import Scope
from app.api import conditional
from app.api.body import strict_json
from app.api.core import Core, core_of
from app.errors import AppError, ErrorItem, InvalidError, NotFoundError, UnauthorizedError

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_DECLARED = "__tdmr_scope__"
_BY_ITSELF = "__tdmr_by_itself__"
_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,200}")


def needs(scope: Scope) -> Callable[[Endpoint], Endpoint]:
    """Declare the scope that an endpoint needs."""
    return _declare(scope)


def public(endpoint: Endpoint) -> Endpoint:
    """Declare that an endpoint is open to everybody: health and documentation only."""
    return _declare(None)(endpoint)


def by_itself(endpoint: Endpoint) -> Endpoint:
    """Declare that an endpoint checks the key itself, in the statement that finds what it gives.

    It is called with the request and the path's parameters, and gives a whole response: what the
    framework does for other endpoints would cost more than the answer.
    """
    setattr(endpoint, _BY_ITSELF, True)
    return endpoint


def _declare(scope: Scope | None) -> Callable[[Endpoint], Endpoint]:
    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _DECLARED, scope)
        return endpoint

    return mark


class GuardedRoute(APIRoute):
    """A route that checks the key, the path, the query and the body before the endpoint runs."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if not hasattr(endpoint, _DECLARED):
            raise TypeError(f"{path}: {endpoint.__name__} declares no scope")
        self.scope: Scope | None = getattr(endpoint, _DECLARED)
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Handler:
        """The handler, with the guard before it and conditional requests behind it."""
        query = _query_names(self.dependant)
        if getattr(self.endpoint, _BY_ITSELF, False):
            return partial(self._pass, query)
        handle = super().get_route_handler()
        has_json = self.body_field is not None

        async def guarded(request: Request) -> Response:
            core = await core_of(request)
            if self.scope is not None:
                request.state.caller = await run_in_threadpool(
                    _admit, core, token_of(request), self.scope
                )
            _check_path(request)
            _check_query(request, query)
            if has_json:
                request = await strict_json(request, core.settings.max_body_bytes)
            return conditional.answer(request, await handle(request))

        return guarded

    async def _pass(self, query: set[str], request: Request) -> Response:
        token = request.state.token = token_of(request)
        try:
            _check_path(request)
            _check_query(request, query)
        except AppError:
            if self.scope is not None:  # who may not be here learns nothing of what is wrong
                await run_in_threadpool(_admit, await core_of(request), token, self.scope)
            raise
        answer: Response = await self.endpoint(request, **request.path_params)
        return answer


def router() -> APIRouter:
    """A router of guarded routes below /v1."""
    return APIRouter(prefix="/v1", route_class=GuardedRoute)


def token_of(request: Request) -> str:
    """The access key that a request brings. Raises UnauthorizedError."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.casefold() != "bearer" or not token.strip():
        raise UnauthorizedError("Send an access key: Authorization: Bearer tdmr_…")
    return token.strip()


def _admit(core: Core, token: str, scope: Scope) -> Caller:
    """The caller. Raises UnauthorizedError or ForbiddenError."""
    with core.database.read() as session:
        caller = keys.authenticate(session, token)
    caller.require(scope)
    return caller


def _check_path(request: Request) -> None:
    """Raise NotFoundError for what can't be one of our ids or names."""
    if not all(_SEGMENT.fullmatch(str(value)) for value in request.path_params.values()):
        raise NotFoundError("There is no such thing.")


def _query_names(dependant: Dependant) -> set[str]:
    names = {field.alias for field in dependant.query_params}
    return names.union(*(_query_names(each) for each in dependant.dependencies))


def _check_query(request: Request, known: set[str]) -> None:
    if request.scope["query_string"] and (unknown := sorted(set(request.query_params) - known)):
        raise InvalidError(
            "The query has parameters that this route doesn't take.",
            [
                ErrorItem(
                    pointer=f"/query/{name[:100]}",
                    code="unknown_parameter",
                    detail="There is no such parameter here.",
                    allowed=sorted(known),
                )
                for name in unknown[:20]
            ],
        )
