"""The snippets of docs/, run against a real server: client, command, models, tutorial."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch

from benchmarks.served import ROOT, Running, serving
from tests.shapes import draw, draw_dataset
from tests.support import free_port

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server with workers."""
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, checkpoint_seconds="1", poll_seconds="0.2") as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader would try it: images of one's own, and a picture of a cat."""
    draw_dataset(tmp_path / "my_images", {"train": 4, "test": 3})
    draw("cross", 99).convert("RGB").save(tmp_path / "cat.jpg")
    return tmp_path


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def ran(command: list[str], folder: Path, server: Running, **more: str) -> str:
    known = {"URL": server.address, "KEY": server.key, "XDG_CONFIG_HOME": str(folder / "config")}
    known |= more
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, **known, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shell(page: str, folder: Path, server: Running, **more: str) -> str:
    """What a page's shell blocks print, as one script; what it leaves running is ended."""
    start = "set -euo pipefail\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n"
    script = start + "".join(blocks(page, "sh"))
    return ran([shutil.which("bash") or "bash", "-c", script], folder, server, **more)


def masked(text: str) -> list[str]:
    """The lines, without what is another time another: words with digits, and the space between."""
    return [" ".join(re.sub(r"\S*[\d…]\S*", "#", line).split()) for line in text.splitlines()]


def test_the_clients_page(server: Running, folder: Path) -> None:
    snippets = blocks("client.md", "python")
    assert len(snippets) == 3
    start = "import os\nURL, KEY = os.environ['URL'], os.environ['KEY']\n"
    out = ran([sys.executable, "-c", start + "\n".join(snippets)], folder, server)
    lines = out.splitlines()
    assert "succeeded" in out
    assert re.search(r"^1 .* submitted \{\}$", out, re.MULTILINE)
    assert lines[-1] == "not_found"
    assert [line.partition(" ")[0] for line in lines[-3:-1]] == ["/student", "/dataset_id"]
    timm.create_model(f"local-dir:{folder / 'student'}", pretrained=True)


def test_the_commands_page(server: Running, folder: Path) -> None:
    out = shell("command.md", folder, server)
    assert "status      succeeded" in out
    assert "held-out accuracy" in out
    timm.create_model(f"local-dir:{folder / 'student'}", pretrained=True)
    assert (folder / "log.jsonl").read_text().count('"type": "succeeded"') == 1


def test_the_models_page(server: Running, folder: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), folder / "ours.pt")
    start = "import os\nURL, KEY = os.environ['URL'], os.environ['KEY']\n"
    snippets = blocks("models.md", "python")
    assert len(snippets) == 2
    out = ran([sys.executable, "-c", start + "\n".join(snippets)], folder, server)
    assert out.splitlines() == ["ready 306240 []", "True", "['ours']", "ready"]
    (script,) = blocks("models.md", "sh")
    login = 'set -euo pipefail\necho "$KEY" | tdmr login "$URL"\n'
    newest = "DATASET=$(tdmr datasets list --limit 1 --json | grep -o 'ds_[0-9a-f]*' | head -n 1)\n"
    out = ran([shutil.which("bash") or "bash", "-c", login + newest + script], folder, server)
    assert out.count("status        ready") == 2
    assert '"status": "ready"' in out


def test_the_tutorial(tmp_path: Path) -> None:
    """On a server of its own that has never trained anything, as a newcomer's."""
    folder = tmp_path / "reader"
    folder.mkdir()
    for script in blocks("tutorial.md", "python"):
        name = re.match(r"# (\w+\.py)\n", script)
        assert name is not None, "a script of the tutorial begins with its name"
        (folder / name[1]).write_text(script, encoding="utf-8")
    (tmp_path / "server").mkdir()
    with serving(tmp_path / "server", "--dashboard") as server:  # as make serve does
        out = shell("tutorial.md", folder, server, PORT=str(free_port()))
    out += (tmp_path / "server" / "log").read_text(encoding="utf-8")
    printed = set(masked(out))
    shown = masked("".join(blocks("tutorial.md", "text")))
    assert len(shown) > 25
    assert [line for line in shown if line not in printed] == [], out


def test_the_pages_are_linked() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in DOCS.glob("*.md")}
    assert pages <= set(re.findall(r"\(docs/(\w+\.md)\)", readme))
