"""What 20 open tabs on a running job cost the server.

    make bench-dashboard

A job says every second how far it is. First nobody looks; then 20 tabs of a real browser do, each
of which must have drawn what the job said last. Processor time and memory are the server's own;
the browser's aren't counted. Writes benchmarks/results/dashboard.json (FAST=1: …_fast.json).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright
from rich.console import Console
from rich.progress import track

from app.cli import FIRST_OWNER
from app.db import Database, new_id, now
from app.jobs import ledger, moves
from app.jobs.claims import Claim
from app.models import Dataset
from benchmarks.machine import commit, machine, write_result
from benchmarks.served import Running, serving
from tdmr.config import JobSpec

FAST = bool(os.environ.get("FAST"))
TABS = 20
SECONDS = 15 if FAST else 60
STEPS = 100_000
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PATIENCE_MS = 120_000
console = Console()


class Training:
    """A job that says every second how far it is."""

    def __init__(self, server: Running) -> None:
        self._database = Database(f"sqlite:///{server.data / 'tdmr.db'}")
        self.step = 0
        with self._database.write() as session:
            dataset = Dataset(
                id=new_id("ds"), owner=FIRST_OWNER, name="digits", status="ready",
                upload_bytes=1, upload_sha256="0" * 64, version="1" * 64, findings=[],
                classes=["a", "b"], splits={"train": {"a": 9, "b": 9}}, created_at=now(session),
            )  # fmt: skip
            session.add(dataset)
            session.flush()
            spec = JobSpec(foundation="letters_vit", student="test_resnet")
            self.job_id = moves.submit(
                session, owner=FIRST_OWNER, kind="distil", dataset_id=dataset.id,
                spec=spec.model_dump(mode="json"), max_attempts=3, ring=False,
            ).id  # fmt: skip
        with self._database.write() as session:
            claim = moves.claim(session, worker="bench", lease_seconds=3600)
        assert isinstance(claim, Claim)
        self._claim = claim

    def tell(self) -> None:
        """One more line."""
        self.step += 10
        stage = {"name": "distil", "index": 4, "count": 7, "progress": self.step / STEPS}
        losses = dict.fromkeys(("loss", "ce", "kd", "proxy", "relation"), 1 / self.step)
        measures = {"accuracy": 0.9, "learning_rate": 1e-3}
        progress = {
            "event": "progress", "stage": stage, "step": self.step, "steps": STEPS,
            "losses": losses, "measures": measures, "eta_seconds": 60.0,
        }  # fmt: skip
        with self._database.write() as session:
            ledger.beat(session, self._claim, lease_seconds=3600, progress=progress)

    def run(self, seconds: int, title: str) -> None:
        """So many lines, one a second."""
        begun = time.monotonic()
        for number in track(range(seconds), title, console=console):
            self.tell()
            time.sleep(max(0.0, begun + number + 1 - time.monotonic()))

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()


def share(server: Running, training: Training, title: str) -> float:
    """The share of a core that the server takes while the job runs."""
    before, begun = server.cpu_seconds(), time.monotonic()
    training.run(SECONDS, title)
    return (server.cpu_seconds() - before) / (time.monotonic() - begun)


def memory(server: Running) -> int:
    """What the server has in memory now, in bytes."""
    return server.forget_peak()


def measure(server: Running) -> dict[str, Any]:
    """Without tabs, with them, and when they are gone."""
    training = Training(server)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        context = browser.new_context()
        page = _signed_in(context.new_page(), server)
        page.goto("about:blank")
        idle, before = share(server, training, "Nobody looks"), memory(server)
        tabs = [page, *(context.new_page() for _ in range(TABS - 1))]
        for tab in tabs:
            tab.goto(f"{server.address}/dashboard/jobs/{training.job_id}")
        for tab in tabs:
            _shows(tab, training.step)
        busy, after = share(server, training, f"{TABS} tabs"), memory(server)
        for tab in tabs:
            _shows(tab, training.step)
        browser.close()
    training.close()
    return {
        "tabs": TABS,
        "seconds": SECONDS,
        "cores_without": round(idle, 4),
        "cores_with": round(busy, 4),
        "cores_for_tabs": round(busy - idle, 4),
        "bytes_for_tabs": after - before,
    }


def _signed_in(page: Page, server: Running) -> Page:
    page.goto(f"{server.address}/dashboard/")
    page.get_by_label("Access key").fill(server.key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview", timeout=PATIENCE_MS)
    return page


def _shows(page: Page, step: int) -> None:
    wanted = f"{step:,} of {STEPS:,}"
    expect(page.locator(".facts")).to_contain_text(wanted, timeout=PATIENCE_MS)


def main() -> None:
    """Run, print and store."""
    with (
        tempfile.TemporaryDirectory() as name,
        serving(Path(name), "--dashboard", "--no-worker") as server,
    ):
        found = measure(server)
    result = {
        **found,
        "command": f"{'FAST=1 ' if FAST else ''}make bench-dashboard",
        "commit": commit(),
        "machine": machine(),
    }
    console.print(result)
    written = write_result("dashboard_fast" if FAST else "dashboard", result)
    console.print(f"Written to {written.name}")


if __name__ == "__main__":
    main()
