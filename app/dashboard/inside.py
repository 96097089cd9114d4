"""The API, asked from inside: pages know what any client knows, and may do what their key may.

A request goes through the whole server as if it had come over the network with the visitor's key:
the key is looked up, its scopes and limits count, and the audit log hears of it. The session has to
be live as well: signing out in one tab ends what is open in the others.
"""

from __future__ import annotations

import time
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access import sessions
from app.access.sessions import SignedIn
from app.api import problems
from app.api.problems import Problem
from app.dashboard.door import lent
from app.dashboard.paths import PATH
from app.db import Database
from app.errors import UnauthorizedError

Model = TypeVar("Model", bound=BaseModel)

_KEY = b"x-tdmr-inside"  # never sent over the network: see `_Inside`
TIMEOUT = 60.0
LIVE_SECONDS = 2.0  # for which a session that was live is taken to be


class RefusedError(Exception):
    """What the API answered with instead: an RFC 9457 problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem

    @property
    def said(self) -> str:
        """What is wrong, with everything that was found."""
        items = [each.detail for each in self.problem.errors or []]
        return " ".join([self.problem.detail, *(i for i in items if i not in self.problem.detail)])


class Inside:
    """A client of the server in its own process. One for all visitors; belongs to one loop."""

    def __init__(self, api: ASGIApp, database: Database) -> None:
        self._database = database
        self._live_until: dict[str, float] = {}
        transport = httpx.ASGITransport(app=_Inside(api))
        self._http = httpx.AsyncClient(
            transport=transport, base_url="http://inside", timeout=TIMEOUT
        )

    async def ask(
        self, who: SignedIn, method: str, path: str, query: dict[str, Any], json: Any = None
    ) -> Any:
        """The answer's JSON, None for an empty one.

        Raises RefusedError for any answer of 400 or more, and for a session that is over.
        """
        await self._check(who)
        given = {name: value for name, value in query.items() if value is not None}
        response = await self._http.request(
            method, path, params=given, json=json, headers={_KEY.decode(): who.key}
        )
        if response.status_code >= 400:
            raise RefusedError(Problem.model_validate_json(response.content))
        return response.json() if response.content else None

    async def text(self, who: SignedIn, path: str) -> str:
        """A file's text. Raises RefusedError."""
        await self._check(who)
        response = await self._http.get(path, headers={_KEY.decode(): who.key})
        if response.status_code >= 400:
            raise RefusedError(Problem.model_validate_json(response.content))
        return response.text

    async def close(self) -> None:
        """Give its memory back."""
        await self._http.aclose()

    async def _check(self, who: SignedIn) -> None:
        now = time.monotonic()
        if self._live_until.get(who.session, 0.0) > now:
            return
        if not await run_in_threadpool(self._is_live, who.session):
            over = UnauthorizedError("The session is over: sign in again.")
            raise RefusedError(problems.of(over, PATH, "none"))
        self._live_until = {s: until for s, until in self._live_until.items() if until > now}
        self._live_until[who.session] = now + LIVE_SECONDS

    def _is_live(self, session_sha256: str) -> bool:
        with self._database.read() as session:
            return sessions.find_by_digest(session, session_sha256) is not None


class _Inside:
    """Turns the header that only `Inside` can send into the key that the guard looks at."""

    def __init__(self, api: ASGIApp) -> None:
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = next(value for name, value in scope["headers"] if name == _KEY)
        await self._api(lent(scope, scope["path"], key.decode()), receive, send)
