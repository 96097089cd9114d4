"""Logging in, logging out, and not having logged in."""

from __future__ import annotations

import json
import os
import pty
import stat
from pathlib import Path

import pytest

from benchmarks.served import Running
from tdmr.client import connection
from tdmr.client.connection import Connection
from tests.support import free_port
from tests.tdmr.client.misbehaving import Reply, misbehaving, refuses
from tests.tdmr.commands.conftest import COMMAND, Call, environment


def test_a_key_from_stdin_is_checked_and_kept(call: Call, server: Running) -> None:
    done = call("login", server.address, "--json", typed=f"{server.key}\n")
    path = connection.folder() / "login.json"
    assert (done.status, done.error) == (0, "")
    assert json.loads(done.out) == {"url": server.address, "file": str(path)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert connection.load() == Connection(server.address, server.key)
    assert call("jobs", "list").status == 0


def test_one_from_the_environment_or_an_option_too(call: Call, server: Running) -> None:
    done = call("login", TDMR_URL=server.address, TDMR_KEY=server.key)
    assert (done.status, done.out) == (0, "")
    assert f"Logged in to {server.address}" in done.error
    assert call("logout").error == "Forgotten.\n"
    assert call("logout", "--json").out == '{"forgotten": false}\n'
    assert call("login", server.address, "--key", server.key).status == 0


def test_one_that_is_typed_isnt_shown(server: Running) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(COMMAND[0], [*COMMAND, "login", server.address], environment())
    seen = read_until(terminal, "Access key: ")
    os.write(terminal, f"{server.key}\n".encode())
    seen += read_until(terminal, None)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    assert "Logged in" in seen
    assert server.key not in seen
    assert connection.load() == Connection(server.address, server.key)


def read_until(terminal: int, words: str | None) -> str:
    """What a process shows until it shows `words`, or ends."""
    seen = ""
    while words is None or words not in seen:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # Linux says so when the other end is closed
            return seen
        if not piece:
            return seen
        seen += piece.decode()
    return seen


def test_a_wrong_key_is_refused_and_not_kept(call: Call, server: Running) -> None:
    done = call("login", server.address, typed="tdmr_wrong\n")
    assert (done.status, done.out) == (3, "")
    assert done.error.startswith("error: 401 unauthorized: ")
    assert connection.load() is None


def test_a_key_that_may_not_see_models_is_a_key(call: Call) -> None:
    with misbehaving(refuses(403, "forbidden")) as server:
        assert call("login", server.address, typed="k").status == 0


def test_another_kind_of_server_is_told(call: Call) -> None:
    with misbehaving(Reply(200, b"<html>")) as server:
        done = call("login", server.address, typed="k")
    assert done.status == 3
    assert "isn't what this client reads" in done.error


def test_nobody_there_is_told_at_once(call: Call) -> None:
    done = call("login", f"http://127.0.0.1:{free_port()}", typed="k")
    assert done.status == 4
    assert "can't be reached" in done.error


@pytest.mark.parametrize(("url", "key"), [("example", "k"), ("http://[", "k"), ("http://a", "")])
def test_nonsense_is_wrong_use(call: Call, url: str, key: str) -> None:
    done = call("login", url, typed=key)
    assert (done.status, done.out) == (2, "")


def test_a_key_in_clear_is_warned_of(call: Call) -> None:
    done = call("login", "http://tdmr.invalid", typed="k")
    assert done.status == 4
    assert "unencrypted" in done.error


def test_who_isnt_logged_in_is_told_what_to_do(call: Call) -> None:
    for command in ("jobs", "datasets", "students", "models"):
        done = call(command, "list")
        assert (done.status, done.out) == (2, "")
        assert "tdmr login" in done.error


def test_a_kept_key_stays_with_its_server(call: Call, here: Running, tmp_path: Path) -> None:
    with misbehaving() as server:
        done = call("jobs", "list", TDMR_URL=server.address)
    assert (done.status, server.asked) == (2, [])
    assert "No key is known" in done.error
