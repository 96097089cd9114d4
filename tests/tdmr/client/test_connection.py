"""Where the server's address and the key come from, and where a key never goes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import tdmr
from tdmr.client import connection
from tdmr.client.connection import Connection, NoConnectionError

HERE, THERE = "http://127.0.0.1:8080", "https://tdmr.example"
KEPT = Connection(HERE, "tdmr_kept")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("TDMR_URL", "TDMR_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "environment", "found"),
    [
        ((None, None), {}, (HERE, "tdmr_kept")),
        ((THERE, "k"), {"TDMR_URL": HERE, "TDMR_KEY": "e"}, (THERE, "k")),
        ((None, None), {"TDMR_URL": THERE, "TDMR_KEY": "e"}, (THERE, "e")),
        ((None, None), {"TDMR_KEY": "e"}, (HERE, "e")),
        ((None, "k"), {}, (HERE, "k")),
        ((None, None), {"TDMR_URL": "", "TDMR_KEY": ""}, (HERE, "tdmr_kept")),
        ((HERE + "/", None), {}, (HERE + "/", "tdmr_kept")),
    ],
)
def test_what_is_nearest_counts(
    given: tuple[str | None, str | None], environment: dict[str, str], found: tuple[str, str]
) -> None:
    connection.keep(KEPT)
    assert Connection.find(*given, environment) == Connection(*found)


@pytest.mark.parametrize("address", [THERE, "http://127.0.0.1:8081", "https://127.0.0.1:8080"])
def test_a_kept_key_goes_to_no_other_server(address: str) -> None:
    connection.keep(KEPT)
    with pytest.raises(NoConnectionError, match="No key is known"):
        Connection.find(address, None, {})
    with pytest.raises(NoConnectionError, match="No key is known"):
        Connection.find(None, None, {"TDMR_URL": address})


def test_nothing_known_says_what_to_do() -> None:
    with pytest.raises(NoConnectionError, match="tdmr login"):
        tdmr.Client()


@pytest.mark.parametrize(
    "address",
    ["", "ftp://a", "127.0.0.1:8080", "http://", "tdmr.example", "http://[", "http://a:b"],
)
def test_an_address_is_one(address: str) -> None:
    with pytest.raises(NoConnectionError, match="isn't an address"):
        Connection(address, "key")


@pytest.mark.parametrize("key", ["", "two words", "clé", "line\n"])
def test_a_key_is_one(key: str) -> None:
    with pytest.raises(NoConnectionError, match="isn't an access key"):
        Connection(HERE, key)


def test_it_is_kept_for_its_user_alone(tmp_path: Path) -> None:
    assert connection.load() is None
    path = connection.keep(KEPT)
    path.chmod(0o644)
    assert connection.keep(KEPT) == path == tmp_path / "tdmr" / "login.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["login.json"]
    assert connection.load() == KEPT
    assert (connection.forget(), connection.forget()) == (True, False)
    assert connection.load() is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"url": 1, "key": 2}', '{"url": "x"}'])
def test_a_damaged_file_is_told(content: str) -> None:
    connection.keep(KEPT).write_text(content)
    with pytest.raises(NoConnectionError, match="tdmr login"):
        connection.load()
    assert Connection.find(HERE, "k", {}) == Connection(HERE, "k")  # doesn't need it


def test_the_folder_is_the_same_without_platformdirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "linux":
        assert connection.folder() == tmp_path / "tdmr"
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert connection.folder() == tmp_path / "tdmr"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert connection.folder() == Path.home() / ".config" / "tdmr"


def test_a_key_that_crosses_a_network_in_clear_is_known() -> None:
    assert Connection("http://tdmr.example", "k").exposed
    assert not Connection("http://[::1]:80", "k").exposed
    assert not Connection(THERE, "k").exposed
