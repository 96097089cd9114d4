"""A real server without a worker, and both clients behind one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from benchmarks.served import Running, serving
from tdmr.client import AsyncClient, Client


class Ask(Protocol):
    """`ask(address, do, key=…, …)`: what `do` gets of a client."""

    def __call__(
        self, address: str, do: Callable[[Any], Any], key: str = "key", **options: Any
    ) -> Any: ...


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server without a worker."""
    with serving(tmp_path_factory.mktemp("server"), "--no-worker") as running:
        yield running


@pytest.fixture(params=["blocking", "awaiting"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Each test once with Client, and once with AsyncClient."""
    return blocking if request.param == "blocking" else awaiting


def blocking(address: str, do: Callable[[Any], Any], key: str = "key", **options: Any) -> Any:
    with Client(address, key, **options) as client:
        found = do(client)
        return list(found) if hasattr(found, "__next__") else found


def awaiting(address: str, do: Callable[[Any], Any], key: str = "key", **options: Any) -> Any:
    async def main() -> Any:
        async with AsyncClient(address, key, **options) as client:
            found = do(client)
            if hasattr(found, "__aiter__"):
                return [each async for each in found]
            return await found

    return asyncio.run(main())
