"""The `tdmr-server` command: keys are made, listed and taken back."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import audit
from app.access import keys
from app.cli import cli
from app.db import Database
from app.errors import UnauthorizedError
from app.settings import Settings


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def run(data: Path, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, [*arguments, "--data", str(data)])
    assert result.exit_code == code, result.output
    return result.output


def scopes_of(data: Path, token: str) -> tuple[str, set[str]]:
    database = Database(Settings(data_dir=data).url)
    try:
        with database.read() as session:
            caller = keys.authenticate(session, keys.digest(token))
    finally:
        database.close()
    return caller.owner, set(caller.scopes)


def test_a_key_is_made_with_what_it_may_do(data: Path) -> None:
    made = run(data, "keys", "create", "--owner", "ana", "--name", "ci", "--scope", "jobs:read")
    key_id, token = made.split()
    assert scopes_of(data, token) == ("ana", {"jobs:read"})
    listed = run(data, "keys", "list")
    assert key_id in listed
    assert "ana  ci  live  jobs:read  never used" in listed
    assert token not in listed


def test_a_key_is_taken_back(data: Path) -> None:
    key_id, token = run(data, "keys", "create", "--days", "30").split()
    assert "live until" in run(data, "keys", "list")
    assert "revoked" in run(data, "keys", "revoke", key_id)
    with pytest.raises(UnauthorizedError):
        scopes_of(data, token)
    assert "revoked" in run(data, "keys", "list")


def test_taking_back_what_isnt_there_says_so(data: Path) -> None:
    assert "no such key" in run(data, "keys", "revoke", "key_x", code=1)


def test_a_scope_that_there_isnt(data: Path) -> None:
    assert "jobs:read" in run(data, "keys", "create", "--scope", "everything", code=2)


def test_a_key_is_rotated_once(data: Path) -> None:
    made = run(data, "keys", "create", "--owner", "ana", "--scope", "jobs:read", "--days", "30")
    old_id, old = made.split()
    new_id, new = run(data, "keys", "rotate", old_id, "--overlap-hours", "2").split()
    assert scopes_of(data, old) == scopes_of(data, new) == ("ana", {"jobs:read"})
    assert new_id in run(data, "keys", "rotate", old_id, code=1)
    run(data, "keys", "rotate", new_id, "--overlap-hours", "0")
    with pytest.raises(UnauthorizedError):
        scopes_of(data, new)


def test_what_the_operator_does_with_keys_is_in_their_owners_log(data: Path) -> None:
    key_id, _ = run(data, "keys", "create", "--owner", "ana").split()
    new_id, _ = run(data, "keys", "rotate", key_id).split()
    run(data, "keys", "revoke", key_id)
    run(data, "keys", "revoke", "key_x", code=1)
    database = Database(Settings(data_dir=data).url)
    with database.read() as session:
        found = audit.newest(session, "ana", None, 10)
    database.close()
    assert [entry.action for entry in found] == [
        "revoke_api_key",
        "rotate_api_key",
        "create_api_key",
    ]
    assert {(entry.key_id, entry.subject_id) for entry in found} == {(None, key_id)}
    assert found[1].details == {"replaced_by": new_id}
