"""Around every request: its id, its deadline, HEAD, the headers of every answer, the last net."""

from __future__ import annotations

import random
import re
import time

import anyio
import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs, metrics
from app.api import problems
from app.errors import AppError, RequestTimeoutError
from tdmr import spans

RECEIVE_SECONDS = 60.0  # between two pieces of a body
WAITED = "waited"  # in a request's state: seconds that it asked to wait, and did
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

log = structlog.get_logger(__name__)


class Envelope:
    """Pure ASGI middleware, outermost but for the framework's own."""

    def __init__(self, app: ASGIApp, receive_seconds: float = RECEIVE_SECONDS) -> None:
        self._app = app
        self._receive_seconds = receive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; a flaw of ours becomes a problem that tells nothing of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._receive_seconds)
        token = logs.REQUEST.set(exchange.request_id)
        app = _traced(self._app) if spans.are_sent() else self._app
        try:
            await app(exchange.scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            log.info("client_gone")
        except Exception:  # the last net: a flaw of ours becomes a problem
            log.exception("unhandled")
            if exchange.started:
                raise  # half an answer is out: the connection must break, so that it shows
            flaw = AppError("The request failed; our log tells why, under its request_id.")
            response = problems.respond(flaw, scope["path"], exchange.request_id)
            await response(exchange.scope, exchange.receive, exchange.send)
        finally:
            exchange.count()
            logs.REQUEST.reset(token)


def _traced(app: ASGIApp) -> ASGIApp:
    """The same, as a span of the client's trace, if it brings one."""

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        status: list[int] = []

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                status.append(message["status"])
            await send(message)

        known = {"http.request.method": scope["method"], "tdmr.request_id": logs.REQUEST.get()}
        parent = Headers(scope=scope).get("traceparent")
        with spans.span(scope["method"], known, parent=parent) as opened:
            await app(scope, receive, note)
            if (route := getattr(scope.get("route"), "path", None)) is not None:
                opened.update_name(f"{scope['method']} {route}")
                opened.set_attribute("http.route", route)
            opened.set_attribute("http.response.status_code", status[0] if status else 0)

    return traced


def new_id() -> str:
    """An id for a request. No secret: asking the kernel would let go of the interpreter's lock."""
    return f"{random.getrandbits(64):016x}"


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, seconds: float) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else new_id()
        self.started = False
        self._began, self._took, self._status = time.perf_counter(), 0.0, 0
        self._head = scope["method"] == "HEAD"
        state = {**scope.get("state", {}), "request_id": self.request_id, "head": self._head}
        # A copy: the server below must still see HEAD.
        self.scope = {**scope, "state": state, "method": "GET" if self._head else scope["method"]}
        self._receive, self._send, self._seconds = receive, send, seconds
        self._body_read = False

    def count(self) -> None:
        """Have the answer counted, if there was one."""
        if self.started:
            route = getattr(self.scope.get("route"), "path", None)
            waited = self.scope["state"].get(WAITED, 0.0)
            metrics.answered(self.scope["method"], route, self._status, self._took - waited)

    async def receive(self) -> Message:
        """The next piece of the body, in time. Raises RequestTimeoutError."""
        if self._body_read:
            return await self._receive()
        try:
            with anyio.fail_after(self._seconds):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimeoutError(f"Nothing came for {self._seconds:g} seconds.") from None
        self._body_read = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send on, with the headers of every answer, and without a body for HEAD."""
        if message["type"] == "http.response.start":
            self.started = True
            self._status, self._took = message["status"], time.perf_counter() - self._began
            fresh = b"no-store" if message["status"] >= 400 else b"private, no-cache"
            given = list(message["headers"])
            names = {name for name, _ in given}
            ours = ((b"cache-control", fresh), *_HEADERS)
            given += [each for each in ours if each[0] not in names]
            given.append((b"x-request-id", self.request_id.encode()))
            message = {**message, "headers": given}
        elif self._head:
            message = {**message, "body": b""}
        await self._send(message)
