"""A page that somebody looks at: who it is, and what they may ask of the API."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from nicegui import Client, ui
from pydantic import BaseModel

from app.access.scopes import Scope
from app.access.sessions import SignedIn
from app.api.core import Core
from app.dashboard.inside import Inside, RefusedError
from app.dashboard.live import Live, Load, Show
from app.dashboard.parts import span

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")


@dataclass
class Visit:
    """One tab on one page."""

    who: SignedIn
    core: Core
    inside: Inside
    live: Live
    client: Client

    def may(self, scope: Scope) -> bool:
        """Whether the visitor's key has `scope`."""
        return scope in self.who.caller.scopes

    @property
    def undo(self) -> str:
        """For how long what is deleted can be restored, as a sentence."""
        seconds = self.core.settings.deleted_grace_seconds
        return f"It can be restored for {span(seconds)}." if seconds else "It can't be restored."

    async def get(self, model: type[Model], path: str, **query: Any) -> Model:
        """What the API answers to GET. Raises RefusedError."""
        return model.model_validate(await self.inside.ask(self.who, "GET", path, query))

    async def send(self, method: str, path: str, json: Any = None, **query: Any) -> Any:
        """What the API answers to a request that changes something. Raises RefusedError."""
        return await self.inside.ask(self.who, method, path, query, json)

    async def watch(self, topic: Hashable, load: Load[T], show: Show[T], every: int = 1) -> None:
        """Show something now, and again whenever it changes; see `Live.watch`."""
        await self.live.watch(self.client, (self.who.session, topic), load, show, every)

    async def attempt(self, method: str, path: str, said: str, json: Any = None) -> Any:
        """Do what a button stands for, and say `said`, or why it was refused (then None)."""
        try:
            answer = await self.send(method, path, json)
        except RefusedError as refused:
            ui.notify(refused.said, type="negative", multi_line=True, timeout=8000)
            return None
        ui.notify(said, type="positive")
        return answer if answer is not None else {}
