"""The only way into the dashboard: who isn't signed in sees the sign-in page, and nothing else.

Stands before the whole server. Below /dashboard it signs in and out, lets pages and their
WebSocket through with a live session, and lends the session's key to the few routes of the API
that a browser calls by itself (/dashboard/v1/…). Cookies are looked at nowhere else.

What changes something, and every WebSocket, must come from a page of ours: its Origin says so.
Browsers send it with each of these, and no page of another's can forge it.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request, cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import audit
from app.access import keys, sessions
from app.access.sessions import SignedIn
from app.api import problems
from app.api.core import Core
from app.api.guard import SIGNED_IN
from app.api.middleware import new_id
from app.audit import Act
from app.dashboard import sign_in
from app.dashboard.paths import PATH, SIGN_IN, SIGN_OUT, STATIC, within
from app.errors import (
    AppError,
    ForbiddenError,
    NotFoundError,
    RateLimitedError,
    TooLargeError,
    UnauthorizedError,
)

COOKIE = "tdmr_session"
MAX_FORM_BYTES = 4096
SAFE = ("GET", "HEAD")
# Pages are made by a framework that needs inline script and eval; nothing else gets this policy.
PAGES_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
STRICT_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# What a browser asks for by itself: pictures, downloads, an image to classify, uploads in pieces.
LENT = (
    (SAFE, re.compile(r"/v1/datasets/[^/]+/images/[0-9]+")),
    (SAFE, re.compile(r"/v1/students/[^/]+/(?:archive|files/[^/]+)")),
    (("POST",), re.compile(r"/v1/students/[^/]+/predict")),
    (("OPTIONS", "POST"), re.compile(r"/v1/uploads")),
    (("HEAD", "PATCH", "DELETE"), re.compile(r"/v1/uploads/[^/]+")),
)


class Door:
    """ASGI: `api` is the whole server, `pages` the dashboard's pages, of which it knows nothing."""

    def __init__(self, api: FastAPI, pages: ASGIApp) -> None:
        self._api, self._pages = api, pages
        self._core: Core = api.state.core
        self._static = StaticFiles(directory=STATIC)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        path: str = scope.get("path", "")
        if path != PATH and not path.startswith(f"{PATH}/"):
            await self._api(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            await self._request(scope, receive, send)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not comes_from_us(scope) or await self._who(scope) is None:
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._pages(_below(scope, PATH), receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner = scope["path"][len(PATH) :]
        try:
            if scope["method"] not in SAFE and not comes_from_us(scope):
                raise ForbiddenError("This must be sent by a page of the dashboard.")
            if inner == SIGN_IN:
                await self._sign_in(scope, receive, send)
            elif inner.startswith("/static/"):
                await self._static(_below(scope, within("/static")), receive, _with(send))
            else:
                await self._inside(inner, scope, receive, send)
        except AppError as error:
            await _refuse(error, scope, receive, send)
        except HTTPException:  # of the static files: nothing has been sent
            await _refuse(NotFoundError("There is no such thing."), scope, receive, send)

    async def _inside(self, inner: str, scope: Scope, receive: Receive, send: Send) -> None:
        who = await self._who(scope)
        if inner.startswith("/v1/"):
            await self._lend(inner, who, scope, receive, send)
        elif who is None:
            target = quote(scope["path"], safe="/")
            response: Response = RedirectResponse(f"{within(SIGN_IN)}?next={target}", 303)
            await response(scope, receive, _with(send))
        elif inner == SIGN_OUT and scope["method"] == "POST":
            await run_in_threadpool(self._end, who, scope)
            response = RedirectResponse(within(SIGN_IN), 303)
            response.delete_cookie(COOKIE, path=PATH)
            await response(scope, receive, _with(send))
        else:
            scope = {**_below(scope, PATH), "state": {**scope.get("state", {}), "who": who}}
            await self._pages(scope, receive, _with(send, PAGES_POLICY))

    async def _lend(
        self, path: str, who: SignedIn | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if who is None:
            raise UnauthorizedError("You are not signed in any more. Load the page again.")
        if not any(scope["method"] in verbs and form.fullmatch(path) for verbs, form in LENT):
            raise NotFoundError("There is no such thing.")
        await self._api(lent(scope, path, who.key), receive, send)

    async def _sign_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        target = _own_page(request.query_params.get("next", ""))
        if scope["method"] in SAFE:
            response: Response = sign_in.page(target)
        elif scope["method"] == "POST":
            response = await self._try(request, target)
        else:
            raise NotFoundError("There is no such thing.")
        await response(scope, receive, _with(send))

    async def _try(self, request: Request, target: str) -> Response:
        form = await _form(request)
        address = request.client.host if request.client else "unknown"
        try:
            cookie = await run_in_threadpool(self._begin, form.get("key", "").strip(), address)
        except (UnauthorizedError, RateLimitedError) as refused:
            return sign_in.page(target, refused)
        response = RedirectResponse(target or within("/"), 303)
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=int(sessions.LIFETIME.total_seconds()),
            path=PATH,
            secure=request.scope["scheme"] == "https",
            httponly=True,
            samesite="lax",
        )
        return response

    def _begin(self, key: str, address: str) -> str:
        digest = keys.digest(key)
        with self._core.database.read() as session:
            try:
                caller = keys.authenticate(session, digest)
            except UnauthorizedError:
                self._core.limiter.failed(address)
                raise
        act = Act(caller.owner, "sign_in", key_id=caller.key_id, address=address[:100])
        with audit.acting(act), self._core.database.write() as session:
            return sessions.begin(session, digest)

    def _end(self, who: SignedIn, scope: Scope) -> None:
        address = (scope.get("client") or ("unknown",))[0]
        act = Act(who.caller.owner, "sign_out", key_id=who.caller.key_id, address=address[:100])
        with audit.acting(act), self._core.database.write() as session:
            sessions.end(session, who.session)

    async def _who(self, scope: Scope) -> SignedIn | None:
        """Whose browser it is, by its cookie."""
        cookie = cookie_parser(Headers(scope=scope).get("cookie", "")).get(COOKIE)
        if not cookie:
            return None

        def look() -> SignedIn | None:
            with self._core.database.read() as session:
                return sessions.find(session, cookie)

        return await run_in_threadpool(look)


async def _refuse(error: AppError, scope: Scope, receive: Receive, send: Send) -> None:
    request_id = new_id()
    response = problems.respond(error, scope["path"], request_id)
    response.headers["x-request-id"] = request_id
    await response(scope, receive, _with(send))


def lent(scope: Scope, path: str, key: str) -> Scope:
    """A request of the API's own, with the key of this digest; nothing else speaks for it."""
    headers = [each for each in scope["headers"] if each[0] not in (b"authorization", b"cookie")]
    return {
        **scope,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "headers": headers,
        "state": {**scope.get("state", {}), SIGNED_IN: key},
    }


def comes_from_us(scope: Scope) -> bool:
    """Whether a page of this server's sent a request: a proxy may have changed the scheme."""
    headers = Headers(scope=scope)
    origin, host = headers.get("origin", ""), headers.get("host", "")
    return bool(host) and urlsplit(origin).netloc == host


def _own_page(target: str) -> str:
    """Where to go after signing in: to a page of ours, and to no other place."""
    path = urlsplit(target).path
    return path if path.startswith(f"{PATH}/") and "//" not in path and "\\" not in path else ""


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise TooLargeError(f"A form of at most {MAX_FORM_BYTES} bytes is read here.")
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def _below(scope: Scope, root: str) -> Scope:
    return {**scope, "root_path": root}


def _with(send: Send, policy: str = STRICT_POLICY) -> Send:
    """Send on with the headers of every answer."""
    ours = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        # Without a referrer, browsers would send no Origin with a form.
        "referrer-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
    }

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in ours.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sent
