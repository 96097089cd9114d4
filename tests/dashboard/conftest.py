"""A real server with its workers, and a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from benchmarks.served import Running, serving
from tests.dashboard.browser import Visitor, launched


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one file: as long as Playwright is there, its loop runs in the tests' own thread."""
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The embedded service; no weights are to be had from a hub."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HUB_OFFLINE", "1")
        with serving(tmp_path_factory.mktemp("service"), "--dashboard") as found:
            yield found


@pytest.fixture
def visitor(browser: Browser, server: Running) -> Iterator[Visitor]:
    """Somebody who has signed in."""
    found = Visitor(browser, server).sign_in()
    yield found
    found.context.close()
