"""No webhook reaches an address that isn't public: by the corpus, by rebinding, by redirects."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import anyio
import pytest

from app.settings import Settings
from app.webhooks.addresses import (
    Guard,
    RefusedError,
    Target,
    is_public,
    resolve,
    resolve_private,
)
from app.webhooks.network import Network, network_of
from tests.app.webhooks.nets import PUBLIC, Names, Wire, connects, network
from tests.app.webhooks.ssrf_corpus import ADDRESSES, ALLOWED, REFUSED, Refused

IDS = [f"{each.why}: {each.url[:40]!a}" for each in REFUSED]
LOOPBACK = ("127.0.0.1", "127.1.2.3", "0.0.0.0", "::ffff:127.0.0.1", "::1", "::")


class Listener:
    """A socket of both families that hangs up on everybody, and counts them."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port: int = self._socket.getsockname()[1]
        self._count = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                guest, _ = self._socket.accept()
            except OSError:
                return  # closed
            self._count += 1
            guest.close()

    def count(self) -> int:
        """How many have connected since the last count."""
        found, self._count = self._count, 0
        return found

    def close(self) -> None:
        """Listen no more."""
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join()
        self._socket.close()


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    found = Listener()
    yield found
    found.close()


def answers(case: Refused) -> Names:
    return Names(case.answers)


async def check(guard: Guard, url: str) -> Target:
    return await guard.check(url)


async def post(net: Network, url: str) -> Any:
    return await net.post(url, {}, b"{}")


def test_the_corpus_is_large_and_says_why() -> None:
    assert len(REFUSED) >= 80
    assert all(each.why for each in REFUSED)
    assert len({(each.url, each.answers) for each in REFUSED}) == len(REFUSED)
    counts = Counter(each.code for each in REFUSED)
    assert set(counts) == {
        "not_public",
        "malformed_url",
        "private_name",
        "userinfo",
        "port",
        "not_https",
        "unresolvable",
    }


@pytest.mark.parametrize("case", REFUSED, ids=IDS)
def test_what_isnt_public_is_refused_and_says_so(case: Refused) -> None:
    with pytest.raises(RefusedError) as refused:
        anyio.run(check, Guard(answers(case)), case.url)
    assert refused.value.code == case.code


def test_no_connection_is_made_to_any_of_them(listener: Listener) -> None:
    with connects() as heard:
        for case in REFUSED:
            wire = Wire(listener.port)
            answer = anyio.run(post, network(answers(case), wire), case.url)
            assert answer.error in ("refused", "unresolvable")
            assert wire.connected == []
    assert (heard, listener.count()) == ([], 0)


@pytest.mark.parametrize("address", LOOPBACK)
def test_without_the_guard_the_connection_would_be_counted(
    listener: Listener, address: str
) -> None:
    with connects() as heard:
        net = network(Names([address]), Wire(listener.port), private=True)
        assert anyio.run(post, net, "https://hooks.example.com/").error is not None
    assert (len(heard), listener.count()) == (1, 1)


@pytest.mark.parametrize(("url", "found", "address", "authority", "path"), ALLOWED)
def test_public_ones_are_taken_and_connected_to_by_address(
    url: str, found: tuple[str, ...], address: str, authority: str, path: str
) -> None:
    wire = Wire()
    net = network(Names(found), wire)
    target = anyio.run(check, net.guard, url)
    assert (target.authority, target.path) == (authority, path)
    assert anyio.run(post, net, url).error == "connection"
    assert wire.connected == list(found or [address])
    assert wire.connected[0] == address


def test_a_name_that_turns_to_loopback_after_it_was_checked_is_refused(listener: Listener) -> None:
    wire, names = Wire(listener.port), Names([PUBLIC], ["127.0.0.1"])
    net = network(names, wire)
    anyio.run(check, net.guard, "https://hooks.example.com/")
    assert anyio.run(post, net, "https://hooks.example.com/").error == "refused"
    assert (names.asked, wire.connected) == (["hooks.example.com"] * 2, [])
    assert listener.count() == 0


def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    wire, names = Wire(), Names([PUBLIC], ["127.0.0.1"])
    assert anyio.run(post, network(names, wire), "https://hooks.example.com/").error == "connection"
    assert (names.asked, wire.connected) == (["hooks.example.com"], [PUBLIC])


def test_proxies_of_the_environment_arent_used(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    with connects() as heard:
        wire = Wire()
        anyio.run(post, network(Names([PUBLIC]), wire), "https://hooks.example.com/")
    assert (wire.connected, heard, listener.count()) == ([PUBLIC], [], 0)


def test_the_operator_alone_can_open_private_networks(settings: Settings) -> None:
    with pytest.raises(RefusedError):
        network_of(settings).guard.parse("http://redis:6379/")
    trusting = settings.model_copy(update={"webhooks_may_reach_private_networks": True})
    assert network_of(trusting).guard.parse("http://redis:6379/") == Target(
        "http", "redis", 6379, "/"
    )
    with pytest.raises(RefusedError):
        network_of(trusting).guard.parse("http://user@redis/")


def test_the_systems_resolver_tries_no_search_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def noting(name: str, *more: Any, **options: Any) -> Any:
        asked.append(name)
        return real("127.0.0.1", *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", noting)
    assert anyio.run(resolve, "hooks.example.com") == ["127.0.0.1"]
    assert anyio.run(resolve_private, "redis") == ["127.0.0.1"]
    assert asked == ["hooks.example.com.", "redis"]
    with pytest.raises(RefusedError):
        anyio.run(Guard(resolve).addresses, "hooks.example.com")


@pytest.mark.parametrize(("address", "why"), ADDRESSES)
def test_the_judgement_is_of_addresses_not_of_spellings(address: str, why: str) -> None:
    assert not is_public(ip_address(address)), why
