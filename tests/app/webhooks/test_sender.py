"""The sender against a real receiver: signatures, TLS, redirects, deaths, and slow ones."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import text

from app.db import Database
from app.settings import Settings
from app.webhooks import network as network_module
from app.webhooks import sender as sender_module
from app.webhooks import service
from app.webhooks.network import MAX_ANSWER_BYTES
from app.webhooks.sender import Sender
from tests.app.webhooks import owners
from tests.app.webhooks.nets import Names, Wire, network
from tests.app.webhooks.receiver import NAME, Receiver, Reply, make_certificate
from tests.support import free_port, wait_until

ROOT = Path(__file__).parents[3]
SENDER = (
    "import signal; from app.db import Database; from app.settings import Settings;"
    "from app.webhooks.sender import Sender; settings = Settings();"
    "Sender(Database(settings.url), settings).start(); signal.pause()"
)
Start = Callable[[], Sender]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


@pytest.fixture
def trusting(settings: Settings) -> Settings:
    """The settings of a platform whose webhooks stay inside."""
    return settings.model_copy(update={"webhooks_may_reach_private_networks": True})


@pytest.fixture
def start(database: Database, trusting: Settings) -> Iterator[Start]:
    """Start a sender, which is stopped in the end."""
    started: list[Sender] = []

    def make() -> Sender:
        started.append(Sender(database, trusting, interval=0.05))
        started[-1].start()
        return started[-1]

    yield make
    for each in started:
        each.stop()


def state(database: Database, message: str) -> str:
    return owners.delivery(database, message).status


def tried(database: Database, message: str) -> bool:
    return bool(owners.delivery(database, message).attempts)


def test_a_message_comes_signed_as_the_standard_says(
    database: Database, receiver: Receiver, start: Start
) -> None:
    made = owners.endpoint(database, receiver.url)
    secret = service.secret_of(made)
    with database.write() as session:
        rotated = service.secret_of(service.rotate(session, "ana", made.id))
    message = owners.owe(database, made, None)
    start()
    (came,) = receiver.wait(1)
    assert came.id == message
    for each in (secret, rotated):
        payload = came.verify(each)
        assert (payload["type"], payload["data"]) == ("ping", {"endpoint_id": made.id})
    assert came.headers["content-type"] == "application/json"
    assert len(came.headers["webhook-signature"].split(" ")) == 2
    wait_until(lambda: state(database, message) == "delivered")
    (attempt,) = owners.delivery(database, message).attempts
    assert (attempt["status_code"], attempt["error"], attempt["answer"]) == (204, None, "")


def test_a_redirect_isnt_followed(database: Database, receiver: Receiver, start: Start) -> None:
    for status in (301, 302, 307, 308):
        receiver.replies.append(Reply(status, {"Location": receiver.url + "/elsewhere"}))
    made = [owners.owe(database, owners.endpoint(database, receiver.url)) for _ in range(4)]
    start()
    wait_until(lambda: all(tried(database, each) for each in made))
    assert {came.path for came in receiver.messages} == {"/hook"}
    assert {state(database, each) for each in made} == {"pending"}


def test_a_long_answer_is_cut(database: Database, receiver: Receiver, start: Start) -> None:
    receiver.replies.append(Reply(500, body=b"\x00\xff" + b"x" * 5_000_000))
    message = owners.owe(database, owners.endpoint(database, receiver.url))
    start()
    wait_until(lambda: tried(database, message))
    attempt = owners.delivery(database, message).attempts[0]
    assert attempt["answer"] == "\ufffd\ufffd" + "x" * (MAX_ANSWER_BYTES - 2)


def test_a_slow_endpoint_doesnt_hold_up_the_others(
    database: Database, receiver: Receiver, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "SLOTS", 3)  # fewer than the slow one has messages
    monkeypatch.setattr(network_module, "TIMEOUT_SECONDS", 600.0)
    release, slow = threading.Event(), Receiver()
    slow.replies.extend(Reply(hold=release) for _ in range(6))
    tarpit = owners.endpoint(database, slow.url)
    held = [owners.owe(database, tarpit) for _ in range(6)]
    start()
    slow.wait(2)
    quick = [owners.owe(database, owners.endpoint(database, receiver.url)) for _ in range(4)]
    receiver.wait(4)
    wait_until(lambda: all(state(database, each) == "delivered" for each in quick))
    assert len(slow.messages) == 2
    release.set()
    wait_until(lambda: all(state(database, each) == "delivered" for each in held))
    slow.close()


def test_one_that_never_answers_is_given_up_on(
    database: Database, receiver: Receiver, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_module, "TIMEOUT_SECONDS", 0.3)
    release = threading.Event()
    receiver.replies.append(Reply(hold=release))
    message = owners.owe(database, owners.endpoint(database, receiver.url))
    start()
    wait_until(lambda: tried(database, message))
    release.set()
    attempt = owners.delivery(database, message).attempts[0]
    assert (attempt["status_code"], attempt["error"]) == (None, "timeout")


def test_a_killed_sender_leaves_its_message_to_another(
    database: Database, trusting: Settings, receiver: Receiver, start: Start
) -> None:
    release = threading.Event()
    receiver.replies.append(Reply(hold=release))
    made = owners.endpoint(database, receiver.url)
    message = owners.owe(database, made)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TDMR_DATA_DIR": str(trusting.data_dir),
        "TDMR_WEBHOOKS_MAY_REACH_PRIVATE_NETWORKS": "1",
    }
    process = subprocess.Popen([sys.executable, "-c", SENDER], env=environment, cwd=ROOT)
    receiver.wait(1)
    process.kill()
    process.wait()
    release.set()
    assert state(database, message) == "pending"
    owners.pass_time(database, seconds=61)  # its lease runs out
    start()
    first, second = receiver.wait(2)
    wait_until(lambda: state(database, message) == "delivered")
    assert first.id == second.id == message
    assert first.body == second.body
    second.verify(service.secret_of(made))
    row = owners.delivery(database, message)
    assert (row.attempt, row.failures, len(row.attempts)) == (2, 0, 1)


def test_a_sender_that_stops_hands_back_what_it_was_sending(
    database: Database, receiver: Receiver, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "GRACE_SECONDS", 0.0)
    release = threading.Event()
    receiver.replies.append(Reply(hold=release))
    message = owners.owe(database, owners.endpoint(database, receiver.url))
    first = start()
    receiver.wait(1)
    first.stop()
    row = owners.delivery(database, message)
    assert (row.status, row.lease_until, row.attempts) == ("pending", None, [])
    release.set()
    start()
    wait_until(lambda: state(database, message) == "delivered")
    assert [came.id for came in receiver.messages] == [message] * 2


def test_a_nudge_is_heard_at_once(
    database: Database, trusting: Settings, receiver: Receiver
) -> None:
    sender = Sender(database, trusting, interval=3600)
    sender.start()
    for count in (1, 2):
        owners.owe(database, owners.endpoint(database, receiver.url))
        sender.nudge()
        receiver.wait(count)
    sender.stop()


def test_a_database_that_is_away_is_outlived(
    database: Database, receiver: Receiver, start: Start
) -> None:
    message = owners.owe(database, owners.endpoint(database, receiver.url))
    with database.write() as session:
        session.execute(text("ALTER TABLE webhook_deliveries RENAME TO elsewhere"))
    sender = start()
    sender.nudge()
    with database.write() as session:
        session.execute(text("ALTER TABLE elsewhere RENAME TO webhook_deliveries"))
    wait_until(lambda: state(database, message) == "delivered")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def test_tls_is_for_the_name_and_the_connection_for_the_address(certificate: Path) -> None:
    receiver = Receiver(certificate)
    wire = Wire(receiver.port)
    net = network(Names(["127.0.0.1"]), wire, private=True)
    net.trust = ssl.create_default_context(cafile=certificate)
    url = f"https://{NAME}/hook?a=b"
    assert anyio.run(net.post, url, {"webhook-id": "msg_1"}, b"{}").status == 204
    (came,) = receiver.messages
    assert (came.path, came.headers["host"], receiver.names) == ("/hook?a=b", NAME, [NAME])
    assert wire.connected == ["127.0.0.1"]
    assert anyio.run(net.post, "https://other.example.com/", {}, b"{}").error == "tls"
    strangers = network(Names(["127.0.0.1"]), wire, private=True)
    assert anyio.run(strangers.post, url, {}, b"{}").error == "tls"
    assert len(receiver.messages) == 1
    receiver.close()


def test_of_several_addresses_the_next_is_tried() -> None:
    receiver = Receiver()
    net = network(Names(["::1", "127.0.0.1"]), Wire(receiver.port), private=True)
    assert anyio.run(net.post, "http://receiver/", {}, b"{}").status == 204
    receiver.close()


def test_where_nobody_listens_it_says_so() -> None:
    net = network(Names(["127.0.0.1"]), Wire(free_port()), private=True)
    assert anyio.run(net.post, "http://receiver/", {}, b"{}").error == "connection"


def test_a_handshake_that_is_cut_off_leaves_no_connection_open() -> None:
    async def cut(wire: Wire) -> list[int]:
        with anyio.move_on_after(0.2):
            await network(Names(["127.0.0.1"]), wire, private=True).post(
                f"https://{NAME}/", {}, b""
            )
        await anyio.lowlevel.checkpoint()  # the loop lets a closed socket go in its next round
        return [each.get_extra_info("socket").fileno() for each in wire.streams]

    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert anyio.run(cut, Wire(silent.getsockname()[1])) == [-1]
