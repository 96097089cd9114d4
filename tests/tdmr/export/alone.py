"""Environments that hold exactly what some distributions need, and nothing of this project."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement


def closure(*names: str) -> set[str]:
    """The installed distributions that `names` require, themselves included, without extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = metadata.distribution(waiting.pop()).metadata["Name"]
        if name in found:
            continue
        found.add(name)
        for line in metadata.requires(name) or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({**_here(), "extra": ""}):
                waiting.append(wanted.name)
    return found


def _here() -> dict[str, str]:
    return {key: str(value) for key, value in default_environment().items()}


def environment(folder: Path, *names: str) -> Path:
    """A new virtual environment with links to the closure of `names` alone: its interpreter."""
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in sorted(closure(*names)):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
            source, link = Path(str(distribution.locate_file(top))), packages / top
            if top != "__pycache__" and source.exists() and not link.exists():
                link.symlink_to(source)
    return folder / "bin" / "python"
