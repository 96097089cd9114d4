"""The API, asked from inside: pages know what any client knows, and may do what their key may.

A request goes through the whole server as if it had come over the network with the visitor's key:
the key is looked up, its scopes and limits count, and the audit log hears of it.
"""

from __future__ import annotations

from typing import Any, TypeVar

import httpx
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import Problem
from app.dashboard.door import lent

Model = TypeVar("Model", bound=BaseModel)

_KEY = b"x-tdmr-inside"  # never sent over the network: see `_Inside`
TIMEOUT = 60.0


class RefusedError(Exception):
    """What the API answered with instead: an RFC 9457 problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class Inside:
    """A client of the server in its own process. One for all visitors; belongs to one loop."""

    def __init__(self, api: ASGIApp) -> None:
        transport = httpx.ASGITransport(app=_Inside(api))
        self._http = httpx.AsyncClient(
            transport=transport, base_url="http://inside", timeout=TIMEOUT
        )

    async def ask(
        self, key: str, method: str, path: str, query: dict[str, Any], json: Any = None
    ) -> Any:
        """The answer's JSON, None for an empty one; `key` is the digest of the visitor's key.

        Raises RefusedError for any answer of 400 or more.
        """
        given = {name: value for name, value in query.items() if value is not None}
        response = await self._http.request(
            method, path, params=given, json=json, headers={_KEY.decode(): key}
        )
        if response.status_code >= 400:
            raise RefusedError(Problem.model_validate_json(response.content))
        return response.json() if response.content else None

    async def text(self, key: str, path: str) -> str:
        """A file's text. Raises RefusedError."""
        response = await self._http.get(path, headers={_KEY.decode(): key})
        if response.status_code >= 400:
            raise RefusedError(Problem.model_validate_json(response.content))
        return response.text

    async def close(self) -> None:
        """Give its memory back."""
        await self._http.aclose()


class _Inside:
    """Turns the header that only `Inside` can send into the key that the guard looks at."""

    def __init__(self, api: ASGIApp) -> None:
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = next(value for name, value in scope["headers"] if name == _KEY)
        await self._api(lent(scope, scope["path"], key.decode()), receive, send)
