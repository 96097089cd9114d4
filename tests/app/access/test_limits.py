"""Rate limits: what is counted, for whom, in which window; and a Redis that comes and goes."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.access import limits, window
from app.access.limits import Cost, Limiter, network
from app.access.window import MemoryWindows
from app.errors import RateLimitedError
from app.settings import Settings
from tests.support import end, free_port, redis_at


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 6000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1e9 + self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(window, "time", made)
    return made


def limiter(folder: Path, **settings: Any) -> Limiter:
    return Limiter(Settings(data_dir=folder, **settings))


def taken(limiter: Limiter, tries: int, cost: Cost = Cost.READ, key: str = "key_1") -> int:
    """How many of `tries` requests were let through."""
    count = 0
    for _ in range(tries):
        try:
            limiter.take(cost, key)
        except RateLimitedError:
            continue
        count += 1
    return count


def test_so_many_and_no_more(tmp_path: Path) -> None:
    limited = limiter(tmp_path, rate_read="7/day")
    assert taken(limited, 20) == 7
    with pytest.raises(RateLimitedError, match="7 per 1 day") as caught:
        limited.take(Cost.READ, "key_1")
    assert 1 <= int(caught.value.headers["Retry-After"]) <= 86_400


def test_keys_and_classes_are_counted_apart(tmp_path: Path) -> None:
    limited = limiter(tmp_path, rate_read="3/day", rate_write="3/day", rate_predict="2/day")
    assert taken(limited, 9) == 3
    assert taken(limited, 9, key="key_2") == 3
    assert taken(limited, 9, Cost.WRITE) == 3
    assert taken(limited, 9, Cost.PREDICT) == 2


@pytest.mark.parametrize("none", ["", "0"])
def test_a_limit_can_be_taken_away(tmp_path: Path, none: str) -> None:
    assert taken(limiter(tmp_path, rate_read=none), 30_000) == 30_000


def test_what_isnt_a_rate_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rate_read"):
        limiter(tmp_path, rate_read="often")


def test_the_defaults_let_500_pollers_ask_every_2_seconds_with_one_key(tmp_path: Path) -> None:
    assert taken(limiter(tmp_path), 500 * 30) == 500 * 30


def test_of_many_at_once_exactly_the_limit_gets_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited, barrier, counts = limiter(tmp_path, rate_read="1000/day"), Barrier(8), []

    class Slow(window.Window):
        def __init__(self, *what: Any) -> None:
            time.sleep(0.01)  # others come meanwhile
            super().__init__(*what)

    monkeypatch.setattr(window, "Window", Slow)

    def run() -> None:
        barrier.wait()
        counts.append(taken(limited, 500))

    threads = [Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 1000


def test_the_window_slides(clock: Clock) -> None:
    windows = MemoryWindows()

    def fill() -> int:
        return sum(windows.acquire_sliding_window_entry("k", 60, 60) for _ in range(100))

    assert fill() == 60
    clock.now += 30.0
    assert fill() == 0
    clock.now += 45.0  # a quarter into the next window: three quarters of the last one count
    assert windows.get_sliding_window("k", 60) == (60, 45.0, 0, 105.0)
    assert fill() == 60 - 45
    clock.now += 30.0  # now a quarter does
    assert fill() == 60 - 15 - 15
    clock.now += 600.0
    assert fill() == 60


def test_what_is_out_of_sight_is_forgotten(clock: Clock) -> None:
    windows = MemoryWindows()
    for number in range(1000):
        windows.acquire_sliding_window_entry(f"k{number}", 5, 60)
    clock.now += 90.0
    windows.acquire_sliding_window_entry("k0", 5, 60)
    assert len(windows) == 1000  # the window before is still in sight
    clock.now += 60.0
    windows.acquire_sliding_window_entry("new", 5, 60)
    assert len(windows) == 2
    assert (windows.get("k0"), windows.get("k1")) == (1, 0)


def test_wrong_keys_are_counted_by_address_and_no_valid_key_is_refused(tmp_path: Path) -> None:
    limited = limiter(tmp_path, rate_failures="5/day")
    for _ in range(5):
        limited.failed("192.0.2.1")
    with pytest.raises(RateLimitedError):
        limited.failed("192.0.2.1")
    limited.failed("192.0.2.2")
    limited.take(Cost.READ, "key_1")


def test_an_ipv6_customer_is_one_address() -> None:
    assert network("2001:db8::1") == network("2001:db8::ffff:1") == "2001:db8::/64"
    assert network("2001:db8:0:1::1") != network("2001:db8::1")
    assert network("192.0.2.1") == "192.0.2.1"
    assert network("testclient") == "testclient"


def test_servers_with_one_redis_count_together(redis_url: str, tmp_path: Path) -> None:
    one = limiter(tmp_path, rate_read="7/day", broker_url=redis_url)
    other = limiter(tmp_path, rate_read="7/day", broker_url=redis_url)
    assert taken(one, 4) + taken(other, 20) + taken(one, 20) == 7
    with pytest.raises(RateLimitedError) as caught:
        other.take(Cost.READ, "key_1")
    assert int(caught.value.headers["Retry-After"]) >= 1


def test_a_redis_that_is_away_refuses_nobody_and_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    limited = limiter(tmp_path, rate_read="3/day", broker_url=f"redis://127.0.0.1:{port}/0")
    monkeypatch.setattr(limits, "AWAY_SECONDS", 0.0)
    with capture_logs() as logged:
        assert taken(limited, 20) == 20
        with redis_at(port) as server:
            assert taken(limited, 20) == 3
            end(server)
            assert taken(limited, 20) == 20
    told = [entry["event"] for entry in logged]
    assert told == ["rate_limits_off", "rate_limits_on", "rate_limits_off"]


def test_a_redis_that_is_away_isnt_asked_by_every_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    limited = limiter(tmp_path, rate_read="3/day", broker_url=url)
    asked = []
    hit = limited._strategy.hit
    monkeypatch.setattr(limited._strategy, "hit", lambda *what: asked.append(what) or hit(*what))
    monkeypatch.setattr(limits, "AWAY_SECONDS", 3600.0)
    assert taken(limited, 20) == 20
    assert len(asked) == 1
