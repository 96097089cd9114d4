"""Access keys: what opens, what doesn't, and what is kept."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from app.access import keys
from app.access.scopes import ALL, Scope
from app.db import Database, now
from app.errors import ForbiddenError, NotFoundError, UnauthorizedError
from app.models import ApiKey


def make(database: Database, **more: object) -> tuple[str, str]:
    with database.write() as session:
        options: dict[str, object] = {"owner": "ana", "name": "test", "scopes": ALL, **more}
        key, token = keys.create(session, **options)  # type: ignore[arg-type]  # what is given is meant to vary
        return key.id, token


def test_a_key_opens_for_its_owner_with_its_scopes(any_database: Database) -> None:
    key_id, token = make(any_database, scopes=[Scope.JOBS_READ])
    with any_database.read() as session:
        caller = keys.authenticate(session, keys.digest(token))
    assert (caller.key_id, caller.owner, caller.scopes) == (key_id, "ana", {"jobs:read"})
    caller.require(Scope.JOBS_READ)
    with pytest.raises(ForbiddenError, match="jobs:write"):
        caller.require(Scope.JOBS_WRITE)


def test_only_the_hash_is_kept_and_no_two_keys_are_alike(any_database: Database) -> None:
    tokens = {make(any_database)[1] for _ in range(20)}
    assert len(tokens) == 20
    assert all(len(token) == len("tdmr_") + 43 for token in tokens)  # 256 bits in base64
    with any_database.read() as session:
        stored = str([vars(row) for row in session.scalars(select(ApiKey))])
    assert not any(token in stored or token[5:] in stored for token in tokens)


@pytest.mark.parametrize("token", ["", "tdmr_", "tdmr_" + "A" * 43, "x" * 5000, "\udcff"])
def test_what_isnt_a_key_is_refused(any_database: Database, token: str) -> None:
    make(any_database)
    with any_database.read() as session, pytest.raises(UnauthorizedError):
        keys.authenticate(session, keys.digest(token))


def test_a_revoked_key_is_refused_for_good(any_database: Database) -> None:
    key_id, token = make(any_database)
    with any_database.write() as session:
        first = keys.revoke(session, key_id).revoked_at
    with any_database.write() as session:
        assert keys.revoke(session, key_id).revoked_at == first
    with any_database.read() as session, pytest.raises(UnauthorizedError):
        keys.authenticate(session, keys.digest(token))


def test_a_key_opens_until_it_expires(any_database: Database) -> None:
    with any_database.read() as session:
        moment = now(session)
    _, spent = make(any_database, expires_at=moment - timedelta(seconds=1))
    _, live = make(any_database, expires_at=moment + timedelta(minutes=5))
    with any_database.read() as session:
        assert keys.authenticate(session, keys.digest(live)).owner == "ana"
        with pytest.raises(UnauthorizedError):
            keys.authenticate(session, keys.digest(spent))


def test_whether_any_key_opens(any_database: Database) -> None:
    def any_live() -> bool:
        with any_database.read() as session:
            return keys.any_live(session)

    assert not any_live()
    key_id, _ = make(any_database)
    assert any_live()
    with any_database.write() as session:
        keys.revoke(session, key_id)
    assert not any_live()


def test_revoking_what_isnt_there_says_so(any_database: Database) -> None:
    with any_database.write() as session, pytest.raises(NotFoundError):
        keys.revoke(session, "key_none")
