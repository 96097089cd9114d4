"""Dockerfile and docker-compose.yml: their schemas, and what we ask of them beyond that."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from tests.deploy import files
from tests.deploy.files import ROOT

IMAGES = ("server", "worker")
COMPOSE = files.compose()
SERVICES: dict[str, Any] = COMPOSE["services"]
STORED = ("URL", "ENDPOINT", "ALLOW_HTTP", "ACCESS_KEY", "SECRET_KEY")
STORE = {f"TDMR_STORAGE_{name}" for name in STORED}
KNOWN = {f"TDMR_{name.upper()}" for name in Settings.model_fields} | STORE | {"TDMR_SECRETS_DIR"}
OURS = [name for name, service in SERVICES.items() if "build" in service]


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).parent / command[0])
    return subprocess.run(
        [program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_hadolint_has_nothing_to_say() -> None:
    done = ran("hadolint", "--no-color", "Dockerfile")
    assert (done.stdout, done.returncode) == ("", 0)
    assert "hadolint ignore" not in (ROOT / "Dockerfile").read_text()
    assert not (ROOT / ".hadolint.yaml").exists()


def test_the_compose_file_is_one_and_a_wrong_one_would_be_noticed(tmp_path: Path) -> None:
    schema = ("check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    done = ran(*schema, "docker-compose.yml")
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "docker-compose.yml"
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    wrong.write_text(text.replace("stop_grace_period", "stop_grace_perod"), encoding="utf-8")
    assert "stop_grace_perod" in ran(*schema, str(wrong)).stdout


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_nobody_in_particular_from_pinned_and_hashed_parts(image: str) -> None:
    stages = files.stages()
    steps = stages[image]
    assert files.last(steps, "USER") == "10001:10001"
    assert files.health({"build": {"target": image}})
    (install,) = [rest for name, rest in stages[f"build-{image}"] if name == "RUN"]
    assert "--require-hashes" in install
    assert files.copied(stages[f"build-{image}"]) == [f"requirements/{image}.txt"]
    for each in stages.values():
        assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", files.last(each, "FROM"))


def test_the_servers_image_has_no_torch() -> None:
    locked = (ROOT / "requirements" / "server.txt").read_text(encoding="utf-8")
    assert not re.search(r"^(?:torch|timm|nvidia|triton)", locked, re.MULTILINE)
    assert "worker" not in files.copied(files.stages()["server"])


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_copied_is_let_in_and_is_all_that_its_commands_need(
    image: str, tmp_path: Path
) -> None:
    steps = files.stages()[image]
    let_in = set(re.findall(r"(?m)^!(.+)$", (ROOT / ".dockerignore").read_text()))
    assert {*files.copied(steps)} <= let_in
    for name in files.copied(steps):
        put = shutil.copy if (ROOT / name).is_file() else shutil.copytree
        put(ROOT / name, tmp_path / name)
    entry = [word.replace("python", sys.executable) for word in files.words(steps, "ENTRYPOINT")]
    asked = ["keys", "list", "--data", str(tmp_path / "data")] if image == "server" else ["--help"]
    done = subprocess.run(
        [*entry, *asked], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_bounded_watched_and_started_again(name: str) -> None:
    service = SERVICES[name]
    assert bool(files.health(service)) == (name != "migrate")  # which ends
    assert service["restart"] in ("unless-stopped", "on-failure")
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory"}
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    if "build" not in service:
        assert re.search(r":v?\d+\.\d+(?:\.\d+)?(?:-\w+)?$", service["image"]), "pin the version"


def test_only_the_proxy_can_be_reached_and_only_the_server_by_it() -> None:
    published = [name for name, service in SERVICES.items() if "ports" in service]
    assert published == ["proxy"]
    front = [name for name, service in SERVICES.items() if "front" in service["networks"]]
    assert front == ["server", "proxy"]
    networks = COMPOSE["networks"]
    assert networks["back"]["internal"] is networks["front"]["internal"] is True
    for name in ("postgres", "redis", "store", "migrate"):
        assert SERVICES[name]["networks"] == ["back"]
    assert "back" not in SERVICES["proxy"]["networks"]
    (net,) = networks["front"]["ipam"]["config"]
    assert SERVICES["server"]["environment"]["TDMR_TRUSTED_PROXIES"] == net["subnet"]


def test_each_secret_is_a_file_that_is_made_and_that_somebody_needs(tmp_path: Path) -> None:
    make = ["make", "--silent", "secrets", f"SECRETS={tmp_path}"]
    for _ in range(2):  # the second time changes nothing
        subprocess.run(make, cwd=ROOT, check=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in made.values())
    assert len(set(made.values())) == len(made)
    declared = COMPOSE["secrets"]
    assert set(made) == set(declared)
    assert {Path(each["file"]).name for each in declared.values()} == set(declared)
    asked = [name for service in SERVICES.values() for name in service.get("secrets", [])]
    assert set(asked) == set(declared)
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert {*re.findall(r"/run/secrets/(\w+)", text)} == set(declared)


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_given_settings_that_there_are_and_no_password(name: str) -> None:
    service = SERVICES[name]
    assert set(service["environment"]) <= KNOWN
    assert {secret.upper() for secret in service["secrets"]} <= KNOWN
    assert not [
        value for value in service["environment"].values() if re.search(r"://[^/]*:[^/]*@", value)
    ]
    assert "data:/var/lib/tdmr" in service["volumes"]


def test_a_gpu_is_reserved_for_the_worker_that_trains_on_it() -> None:
    (device,) = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "reservations" not in SERVICES["worker-cpu"]["deploy"]["resources"]
    assert (SERVICES["worker"]["profiles"], SERVICES["worker-cpu"]["profiles"]) == (
        ["gpu"],
        ["cpu"],
    )
    for name in ("worker", "worker-cpu", "checks"):
        assert SERVICES[name]["stop_grace_period"] == "45s"  # it hands back within 30
