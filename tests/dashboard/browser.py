"""Debian's Chromium, driven by Playwright; it talks to the server under test and to nobody else."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from benchmarks.served import Running

SHOTS = Path(__file__).parents[2] / "artifacts" / "screenshots"
PATIENCE_MS = 90_000
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# A file of a fixed date: what was broken off is known again by name, size and date.
DROP = """async ([name, encoded]) => {
  const bytes = Uint8Array.from(atob(encoded), (char) => char.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { lastModified: 1 }));
  document.querySelector("#drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""
DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


def chromium() -> str:
    """Where the browser is: `make` installs Debian's, CHROMIUM names another."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert found, "There is no Chromium: `make test` installs it, CHROMIUM says where it is."
    return found


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser without a window."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=[*QUIET])
        yield browser
        browser.close()


class Visitor:
    """Somebody at a browser, who notes what it asks of whom, and what it complains of."""

    def __init__(self, browser: Browser, server: Running, **context: object) -> None:
        self.server = server
        self.context: BrowserContext = browser.new_context(**{"viewport": DESK, **context})  # type: ignore[arg-type]  # options by name
        self.context.set_default_timeout(PATIENCE_MS)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page = self.tab()

    def tab(self) -> Page:
        """Another tab."""
        page = self.context.new_page()
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("websocket", lambda socket: self.asked.append(socket.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda m: m.type == "error" and self.complaints.append(m.text))
        return page

    def sign_in(self, key: str | None = None) -> Visitor:
        """Sign in by the form."""
        self.page.goto(f"{self.server.address}/dashboard/")
        self.page.get_by_label("Access key").fill(key or self.server.key)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("heading", level=1)).to_have_text("Overview")
        return self

    def go(self, path: str, title: str) -> Page:
        """Open a page of the dashboard."""
        self.page.goto(f"{self.server.address}/dashboard{path}")
        expect(self.page.get_by_role("heading", level=1)).to_have_text(title)
        return self.page

    def strangers(self) -> list[str]:
        """What the browser asked of any other origin."""
        host = self.server.address.partition("//")[2]
        ours = (f"http://{host}/", f"ws://{host}/", "data:", "blob:")
        return [url for url in self.asked if not url.startswith(ours)]


def drop(page: Page, name: str, content: bytes) -> None:
    """Drop a file on the page of datasets."""
    page.evaluate(DROP, [name, base64.b64encode(content).decode()])


def shoot(page: Page, name: str) -> None:
    """Keep a picture of the page."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(400)  # for what is being drawn
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
