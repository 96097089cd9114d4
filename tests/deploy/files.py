"""What the Dockerfile and docker-compose.yml say, as data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
Step = tuple[str, str]  # an instruction and its arguments


def stages() -> dict[str, list[Step]]:
    """The steps of each of the Dockerfile's stages, with those of the stage that it begins with."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    found: dict[str, list[Step]] = {}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            steps = found[stage] = [*found.get(base, [("FROM", base)])]
        elif name:
            steps.append((name, rest.strip()))
    return found


def last(steps: list[Step], name: str) -> str:
    """The arguments of the last of these instructions: the one that counts."""
    return [rest for each, rest in steps if each == name][-1]


def words(steps: list[Step], name: str) -> list[str]:
    """The JSON list of an instruction; of a HEALTHCHECK, that of its CMD."""
    found: list[str] = json.loads(re.sub(r"^--.*CMD ", "", last(steps, name)))
    return found


def environment(steps: list[Step]) -> dict[str, str]:
    """What ENV sets."""
    pairs = " ".join(rest for name, rest in steps if name == "ENV").split()
    return dict(pair.split("=", 1) for pair in pairs)


def copied(steps: list[Step]) -> list[str]:
    """What is copied from the checkout."""
    return [rest.split()[0] for name, rest in steps if name == "COPY" and "--from" not in rest]


def compose() -> dict[str, Any]:
    """docker-compose.yml, its anchors put in place."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return found


def target(service: dict[str, Any]) -> list[Step] | None:
    """The Dockerfile's steps of a service that is built from it."""
    return stages()[service["build"]["target"]] if "build" in service else None


def command(service: dict[str, Any]) -> list[str]:
    """What a service runs: the image's entrypoint unless it names one, and its command."""
    steps = target(service)
    image = words(steps, "ENTRYPOINT") if steps else []
    default = words(steps, "CMD") if steps else []
    return [*service.get("entrypoint", image), *service.get("command", default)]


def health(service: dict[str, Any]) -> list[str]:
    """The command that says whether a service is well; empty where it ends by itself."""
    check = service.get("healthcheck")
    if check is None:
        steps = target(service)
        return words(steps, "HEALTHCHECK") if steps else []
    if check.get("disable"):
        return []
    how, *rest = check["test"]
    return ["sh", "-c", *rest] if how == "CMD-SHELL" else list(rest)


def order(services: dict[str, Any]) -> list[str]:
    """The services, each behind those that it depends on."""
    found: list[str] = []

    def put(name: str) -> None:
        for needed in services[name].get("depends_on", {}):
            put(needed)
        if name not in found:
            found.append(name)

    for name in services:
        put(name)
    return found
