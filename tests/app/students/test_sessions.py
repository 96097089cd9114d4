"""Sessions: loaded once, few at a time; and how a network is stopped."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from app.students.network import Network
from app.students.sessions import Sessions, Stop, StoppedError
from tests.app.networks import endless


def test_of_many_who_ask_one_loads() -> None:
    sessions: Sessions[object] = Sessions(2)
    barrier, loads = threading.Barrier(16), []

    def load() -> object:
        time.sleep(0.05)
        loads.append(1)
        return object()

    def ask(place: int) -> object:
        barrier.wait()
        return sessions.get(f"{place % 2}", load)

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(16)))
    assert len(loads) == 2
    assert len({id(each) for each in found[::2]}) == len({id(each) for each in found[1::2]}) == 1


def test_the_longest_unused_makes_room() -> None:
    sessions: Sessions[str] = Sessions(2)
    for key in ("a", "b", "a", "c"):
        assert sessions.get(key, lambda key=key: key.upper()) == key.upper()  # type: ignore[misc]  # a default in a lambda
    assert sessions.keys() == ["a", "c"]
    assert sessions.get("a", lambda: "again") == "A"
    assert sessions.get("b", lambda: "again") == "again"
    assert sessions.keys() == ["a", "b"]


def test_one_load_doesnt_wait_for_another() -> None:
    sessions: Sessions[str] = Sessions(2)
    go = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(sessions.get, "slow", lambda: str(go.wait(60)))
        assert sessions.get("quick", lambda: "done") == "done"
        go.set()
        assert slow.result() == "True"


def test_what_couldnt_be_loaded_isnt_kept() -> None:
    sessions: Sessions[str] = Sessions(2)

    def fail() -> str:
        raise OSError("not now")

    for _ in range(2):
        with pytest.raises(OSError, match="not now"):
            sessions.get("a", fail)
    assert sessions.keys() == []
    assert sessions.get("a", lambda: "now") == "now"


def test_a_network_that_runs_can_be_stopped() -> None:
    network, stop = Network(endless(), 1), Stop()
    image = Image.new("RGB", (8, 8))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(network.classify, image, stop)
        time.sleep(0.2)
        assert not running.done()
        stop()
        with pytest.raises(StoppedError):
            running.result(60)


def test_one_that_was_stopped_before_doesnt_begin() -> None:
    stop = Stop()
    stop()
    with pytest.raises(StoppedError):
        Network(endless(), 1).classify(Image.new("RGB", (8, 8)), stop)
