"""The command as a user calls it, logged in to a real server without a worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from typer.testing import CliRunner

from benchmarks.served import Running, serving
from tdmr.cli import app
from tdmr.client import connection
from tdmr.client.connection import Connection

COMMAND = [sys.executable, "-m", "tdmr"]


@dataclass(frozen=True)
class Called:
    """How a call ended."""

    status: int
    out: str
    error: str


class Call(Protocol):
    """`call("jobs", "list", …)`; `typed` is what stdin has."""

    def __call__(self, *arguments: object, typed: str = "", **environment: str) -> Called: ...


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server without a worker."""
    with serving(tmp_path_factory.mktemp("server"), "--no-worker") as running:
        yield running


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is logged in."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("TDMR_URL", "TDMR_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def call() -> Call:
    """The command, in this process."""

    def run(*arguments: object, typed: str = "", **environment: str) -> Called:
        given = [str(argument) for argument in arguments]
        done = CliRunner().invoke(app, given, input=typed, env=environment)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Called(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def here(server: Running) -> Running:
    """The server, logged in to."""
    connection.keep(Connection(server.address, server.key))
    return server


def said(server: Running, path: str, **query: Any) -> Any:
    """What the API itself answers."""
    with server.client() as http:
        return http.get(f"/v1/{path}", params=query).json()


def environment() -> dict[str, str]:
    """For a process of its own: a narrow terminal without colours."""
    return {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
