"""The commands of docker-compose.yml, run in its order on real services, and asked by the proxy.

What a container engine adds isn't shown: images built, networks apart, limits, read-only folders.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis
import websockets

from app.settings import Settings
from tests.app.datasets.zips import good_files, pack
from tests.app.service import MODELS, ZIP
from tests.deploy import files
from tests.deploy.composition import Composition, composed
from tests.deploy.files import ROOT
from tests.support import answers, free_port, wait_until

PROFILE = "cpu"
LIMIT = 8 * 2**20  # of an upload, in the proxy
STORED = "storage_url" in Settings.model_fields  # the store is used once the server knows one


@pytest.fixture(scope="module")
def running() -> Iterator[Composition]:
    """Everything that the profile starts, in the file's order, as its first lines say."""
    with composed(TDMR_UPLOAD_LIMIT=f"{LIMIT >> 20}MiB") as composition:
        for name in files.order(composition.services):
            if composition.services[name].get("profiles", [PROFILE]) != [PROFILE]:
                continue
            if name == "server":
                composition.given["KEY"] = first_key(composition)
            composition.start(name)
        yield composition


def first_key(composition: Composition) -> str:
    """By the command that the file's first lines tell of."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    (line,) = re.findall(r"docker compose run --rm (server .*?)  #", text)
    name, *words = shlex.split(line)
    entry = files.words(files.stages()[name], "ENTRYPOINT")
    done = composition.run(name, [*entry, *words])
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[1]


@pytest.fixture(scope="module")
def client(running: Composition) -> Iterator[httpx.Client]:
    """By the proxy, from an address that the server wouldn't see but for X-Forwarded-For."""
    headers = {"Authorization": f"Bearer {running.given['KEY']}"}
    transport = httpx.HTTPTransport(local_address="127.0.1.7")
    with httpx.Client(
        base_url=site(running), headers=headers, transport=transport, timeout=60
    ) as client:
        yield client


def site(running: Composition) -> str:
    return running.environment("proxy")["TDMR_SITE"]


@pytest.fixture(scope="module")
def dataset(client: httpx.Client) -> str:
    """An upload of 5 MiB, more than the proxy would hold back, that `checks` has found good."""
    images = good_files()
    images["notes.txt"] = bytes(5 * 2**20)
    archive = pack(images, method=0)
    assert len(archive) > 5 * 2**20
    made = client.post("/v1/datasets", content=archive, headers=ZIP)
    assert made.status_code == 201, made.text
    address = f"/v1/datasets/{made.json()['id']}"
    wait_until(lambda: client.get(address).json()["status"] != "processing")
    found = client.get(address).json()
    assert found["status"] == "ready", found
    return str(found["id"])


def test_it_is_well_and_its_parts_are_what_the_file_says(
    running: Composition, client: httpx.Client, dataset: str
) -> None:
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").json()["status"] == "ready"
    assert client.get("/metrics").status_code == 404
    page = client.get("/dashboard/sign-in")
    assert (page.status_code, "Access key" in page.text) == (200, True)
    password = (running.secrets / "tdmr_broker_password").read_text()
    with redis.Redis(port=int(running.ports["6379"]), password=password) as broker:
        assert broker.config_get("appendonly") == {"appendonly": "yes"}
    folder = running.volume("store") / "tdmr" if STORED else running.data / "storage"
    assert [path for path in folder.rglob("*") if dataset in str(path)]


def test_a_body_over_the_limit_is_refused_by_the_proxy(client: httpx.Client) -> None:
    json = {"Content-Type": "application/json"}
    archive, order = pack({"notes.txt": bytes(LIMIT)}, method=0), b" " * (2**20 + 1)
    for path, body, kind in (("/v1/datasets", archive, ZIP), ("/v1/jobs", order, json)):
        answer = client.post(path, content=body, headers=kind)
        assert (answer.status_code, answer.headers.get("x-request-id")) == (413, None)


def test_a_client_that_is_slow_is_let_go(running: Composition) -> None:
    """By another proxy on the same file, whose patience is short; the test is the server behind."""
    port = free_port()
    short = {"TDMR_HEADER_TIMEOUT": "200ms", "TDMR_BODY_TIMEOUT": "200ms"}
    where = {"TDMR_SITE": f"http://127.0.0.1:{port}", "TDMR_HEALTH_PORT": str(free_port())}
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
    with socket.create_server(("127.0.0.1", 0)) as server:
        upstream = f"127.0.0.1:{server.getsockname()[1]}"
        running.start("proxy", "hasty", TDMR_UPSTREAM=upstream, **where, **short)
        wait_until(lambda: answers(lambda: socket.create_connection(("127.0.0.1", port))))
        with socket.create_connection(("127.0.0.1", port), timeout=60) as slow:
            slow.sendall(head)
            assert slow.recv(1000) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=60) as slow:
            slow.sendall(head + b"Content-Length: 10\r\n\r\nab")
            behind, _ = server.accept()
            with behind:
                behind.settimeout(60)
                came = b"".join(iter(lambda: behind.recv(1000), b""))  # up to its end
    assert came.endswith(b"\r\n\r\nab")
    assert running.stop("hasty") == 0


def test_an_event_stream_comes_as_it_is_written(
    running: Composition, client: httpx.Client, dataset: str
) -> None:
    """With nobody left to train, the job can only have been submitted when the stream begins."""
    assert running.stop("worker-cpu") == 0
    order = {"dataset_id": dataset, **MODELS, "options": {"image_size": 32}}
    job = client.post("/v1/jobs", json=order).json()["id"]
    seen = []
    headers = {"Accept": "text/event-stream"}
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                seen.append(line.removeprefix("event: "))
                if seen == ["submitted"]:
                    assert client.post(f"/v1/jobs/{job}/cancel").status_code == 202
    assert (seen[0], seen[-2:]) == ("submitted", ["cancelled", "end"])


def test_the_dashboard_is_signed_into_and_its_socket_opens(
    running: Composition, client: httpx.Client
) -> None:
    """Host and the client's address come through, and the upgrade does."""
    address = site(running)
    form, origin = {"key": running.given["KEY"]}, {"Origin": address}
    answer = client.post("/dashboard/sign-in", data=form, headers=origin)
    assert answer.status_code == 303, answer.text
    cookie = answer.headers["set-cookie"].partition(";")[0]
    (entry,) = client.get("/v1/audit-log", params={"action": "sign_in"}).json()["data"]
    assert entry["address"] == "127.0.1.7"

    async def opened() -> Any:
        url = address.replace("http", "ws", 1) + "/dashboard/_nicegui_ws/socket.io/"
        query = "?EIO=4&transport=websocket"
        headers = {"Cookie": cookie}
        async with websockets.connect(
            url + query, additional_headers=headers, origin=address
        ) as ws:
            return await ws.recv()

    greeting = asyncio.run(opened())
    assert greeting[0] == "0"  # Engine.IO's word for open
    assert "sid" in json.loads(greeting[1:])


def test_the_workers_end_in_order_and_then_arent_well(running: Composition) -> None:
    check = files.health(running.services["checks"])
    assert running.run("checks", check).returncode == 0
    assert running.stop("checks") == 0
    assert running.run("checks", check).returncode == 1
