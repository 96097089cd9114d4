"""Deny by default: a route declares the scope it needs, or that it is public, or can't be made.

The guard runs before anything of the request is read: key first, then path, query and body.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from app import audit
from app.access import keys
from app.access.keys import Caller
from app.access.limits import Cost
from app.access.scopes import Scope
from app.api import conditional
from app.api.body import is_empty, strict_json
from app.api.core import Core, core_of
from app.audit import NOTHING_NAMED, Act, Subject
from app.errors import AppError, ErrorItem, InvalidError, NotFoundError, UnauthorizedError

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

# In a request's state: the digest of its browser's key. Only the dashboard's door puts it there.
SIGNED_IN = "signed_in"
_DECLARED = "__tdmr_scope__"
_FAILS = "__tdmr_fails__"
_BY_ITSELF = "__tdmr_by_itself__"
_OPERATORS = "__tdmr_operators__"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,200}")


def needs(scope: Scope, cost: Cost | None = None) -> Callable[[Endpoint], Endpoint]:
    """Declare the scope that an endpoint needs, and its cost class unless its method says it."""
    return _declare(scope, cost)


def public(endpoint: Endpoint) -> Endpoint:
    """Declare that an endpoint is open to everybody: health and documentation only."""
    return _declare(None)(endpoint)


def operators(endpoint: Endpoint) -> Endpoint:
    """Declare that an endpoint is the operators': open to TDMR_METRICS_TOKEN, and to no key.

    Without that setting there is no such thing.
    """
    setattr(endpoint, _OPERATORS, True)
    return _declare(None)(endpoint)


def fails(*errors: type[AppError]) -> Callable[[Endpoint], Endpoint]:
    """Declare what an endpoint answers with beside what any of its kind does, for its description.

    The guard's own refusals, those of parameters and JSON bodies, and 404 go without saying.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _FAILS, errors)
        return endpoint

    return mark


def by_itself(endpoint: Endpoint) -> Endpoint:
    """Declare that an endpoint checks the key itself, in the statement that finds what it gives.

    It is called with the request and the path's parameters, and gives a whole response: what the
    framework does for other endpoints would cost more than the answer.
    """
    setattr(endpoint, _BY_ITSELF, True)
    return endpoint


def _declare(scope: Scope | None, cost: Cost | None = None) -> Callable[[Endpoint], Endpoint]:
    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _DECLARED, (scope, cost))
        return endpoint

    return mark


class GuardedRoute(APIRoute):
    """A route that checks the key, the path, the query and the body before the endpoint runs."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if not hasattr(endpoint, _DECLARED):
            raise TypeError(f"{path}: {endpoint.__name__} declares no scope")
        self.fails: tuple[type[AppError], ...] = getattr(endpoint, _FAILS, ())
        self.scope: Scope | None
        self.scope, cost = getattr(endpoint, _DECLARED)
        self.operators: bool = getattr(endpoint, _OPERATORS, False)
        super().__init__(path, endpoint, **options)
        self.safe = _SAFE.issuperset(self.methods or ())
        self.cost: Cost = cost or (Cost.READ if self.safe else Cost.WRITE)

    def get_route_handler(self) -> Handler:
        """The handler, with the guard before it and conditional requests behind it."""
        query = _query_names(self.dependant)
        if getattr(self.endpoint, _BY_ITSELF, False):
            return partial(self._pass, query)
        handle = super().get_route_handler()
        body = self.body_field
        may_be_empty = body is not None and not body.field_info.is_required()

        async def guarded(request: Request) -> Response:
            core = await core_of(request)
            if self.operators:
                _check_token(core, request)
            if self.scope is not None:
                request.state.caller = await run_in_threadpool(
                    _admit, core, request, self.scope, self.cost
                )
            _check_path(request)
            _check_query(request, query)
            if body is not None and not (may_be_empty and is_empty(request)):
                request = await strict_json(request, core.settings.max_body_bytes)
            if self.safe or self.scope is None:
                return conditional.answer(request, await handle(request))
            with audit.acting(_act(request, self.name)):
                return await handle(request)

        return guarded

    async def _pass(self, query: set[str], request: Request) -> Response:
        request.state.key = key_of(request)
        try:
            _check_path(request)
            _check_query(request, query)
        except AppError:
            if self.scope is not None:  # who may not be here learns nothing of what is wrong
                await run_in_threadpool(
                    _admit, await core_of(request), request, self.scope, self.cost
                )
            raise
        answer: Response = await self.endpoint(request, **request.path_params)
        return answer


def router() -> APIRouter:
    """A router of guarded routes below /v1."""
    return APIRouter(prefix="/v1", route_class=GuardedRoute)


def key_of(request: Request) -> str:
    """The digest of the access key that a request brings, or that its browser signed in with.

    Raises UnauthorizedError. Whether the key is live is for the database to say, each time.
    """
    signed_in: str | None = getattr(request.state, SIGNED_IN, None)
    if signed_in is not None:
        return signed_in
    token = _bearer(request)
    if not token:
        raise UnauthorizedError("Send an access key: Authorization: Bearer tdmr_…")
    return keys.digest(token)


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.casefold() == "bearer" else ""


def _check_token(core: Core, request: Request) -> None:
    """Raise NotFoundError where there is no operators' token, UnauthorizedError without it."""
    token = core.settings.metrics_token
    if token is None:
        raise NotFoundError("There is no such thing.")
    wanted = token.get_secret_value().encode()
    if not secrets.compare_digest(_bearer(request).encode(), wanted):
        core.limiter.failed(_address(request))
        raise UnauthorizedError("Send the operator's token: Authorization: Bearer …")


def _admit(core: Core, request: Request, scope: Scope, cost: Cost) -> Caller:
    """The caller. Raises UnauthorizedError, RateLimitedError or ForbiddenError."""
    key = key_of(request)

    def identify() -> Caller:
        with core.database.read() as session:
            return keys.authenticate(session, key)

    return admit(core, request, identify, scope, cost)


def admit(
    core: Core, request: Request, identify: Callable[[], Caller], scope: Scope, cost: Cost
) -> Caller:
    """Who `identify` says it is, if they may. Raises as `_admit` does."""
    try:
        caller = identify()
    except UnauthorizedError:
        core.limiter.failed(_address(request))
        raise
    core.limiter.take(cost, caller.key_id)
    core.usage.seen(caller.key_id)
    caller.require(scope)
    return caller


def _address(request: Request) -> str:
    """Where a request comes from; behind a proxy, the proxy."""
    return request.client.host if request.client else "unknown"


def _act(request: Request, action: str) -> Act:
    """What the audit log says of a request whose endpoint says nothing itself."""
    caller: Caller = request.state.caller
    ids = [(name, str(value)) for name, value in request.path_params.items() if name[-3:] == "_id"]
    return Act(
        owner=caller.owner,
        action=action,
        key_id=caller.key_id,
        request_id=request.state.request_id,
        address=_address(request)[:100],
        subject=Subject(ids[-1][0].removesuffix("_id"), ids[-1][1]) if ids else NOTHING_NAMED,
    )


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
