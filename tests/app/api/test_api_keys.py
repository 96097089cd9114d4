"""/v1/api-keys: a key never gives more than it has, is shown once, and can be replaced in peace."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.access import keys
from app.access.scopes import ALL, Scope
from app.api.core import Core
from app.db import now
from app.models import ApiKey
from tests.app.conftest import MakeKey
from tests.app.service import Service

KEYS = "/v1/api-keys"
MANAGER = (Scope.KEYS_READ, Scope.KEYS_WRITE, Scope.JOBS_READ)
ORDER = {"name": "ci", "scopes": ["jobs:read"], "expires_at": None}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def opens(client: TestClient, token: str, path: str = "/v1/jobs") -> int:
    return client.get(path, headers=bearer(token)).status_code


def in_days(days: float) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


def lent(core: Core, days: float, scopes: tuple[Scope, ...] = MANAGER) -> tuple[str, str]:
    """The id and the token of a key of Ana's that expires."""
    with core.database.write() as session:
        ends = now(session) + timedelta(days=days)
        key, token = keys.create(session, owner="ana", name="l", scopes=scopes, expires_at=ends)
        return key.id, token


def seconds_from_now(moment: str) -> float:
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


def test_a_key_is_made_and_shown_once(service: Service) -> None:
    client = service.client
    response = client.post(KEYS, json={**ORDER, "expires_at": "2100-01-01T01:00:00+01:00"})
    made = response.json()
    assert response.status_code == 201
    assert response.headers["Location"] == f"{KEYS}/{made['id']}"
    assert response.headers["Cache-Control"] == "no-store"
    assert made["expires_at"] == "2100-01-01T00:00:00.000Z"
    assert (made["revoked_at"], made["last_used_at"], made["replaced_by"]) == (None, None, None)
    assert opens(client, made["token"]) == 200
    assert opens(client, made["token"], KEYS) == 403
    token = made.pop("token")
    shown = client.get(f"{KEYS}/{made['id']}")
    assert shown.json() == made
    listed = client.get(KEYS)
    assert listed.json()["data"][0] == made
    assert token not in listed.text + shown.text + client.get("/v1/audit-log").text


def test_an_idempotency_key_replays_no_token(service: Service) -> None:
    headers = {"Idempotency-Key": "same"}
    made = [service.client.post(KEYS, json=ORDER, headers=headers).json() for _ in range(2)]
    assert made[0]["id"] != made[1]["id"]
    assert made[0]["token"] != made[1]["token"]


def test_keys_come_in_pages_the_newest_first(service: Service) -> None:
    made = [service.key(name=str(number))["id"] for number in range(3)]
    first = service.client.get(f"{KEYS}?limit=2")
    assert [key["id"] for key in first.json()["data"]] == [made[2], made[1]]
    second = service.client.get(first.links["next"]["url"]).json()
    assert [key["name"] for key in second["data"]] == ["0", "test"]
    assert not second["has_more"]


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["everything"]}, "/scopes/0"),
        ({"name": ""}, "/name"),
        ({"name": "a\u0000b"}, "/name"),
        ({"owner": "bob"}, "/owner"),
        ({"expires_at": "2100-01-01T00:00:00"}, "/expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+14:00"}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-14:00"}, "/expires_at"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
    ],
)
def test_what_cant_be_a_key(service: Service, wrong: dict[str, Any], pointer: str) -> None:
    response = service.client.post(KEYS, json={**ORDER, **wrong})
    assert response.status_code == 422
    assert [item["pointer"] for item in response.json()["errors"]] == [pointer]


def test_that_a_key_never_expires_must_be_said(service: Service) -> None:
    response = service.client.post(KEYS, json={"name": "ci", "scopes": ["jobs:read"]})
    assert (response.status_code, response.json()["errors"][0]["code"]) == (422, "missing")


def test_a_key_gives_no_scope_that_it_lacks(client: TestClient, make_key: MakeKey) -> None:
    mine = bearer(make_key("ana", *MANAGER))
    asked = {**ORDER, "scopes": ["jobs:read", "jobs:write", "audit:read"]}
    response = client.post(KEYS, json=asked, headers=mine)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert [item["pointer"] for item in response.json()["errors"]] == ["/scopes/1", "/scopes/2"]
    assert client.post(KEYS, json=ORDER, headers=mine).status_code == 201


def test_nor_by_rotating_a_key_that_has_it(service: Service, make_key: MakeKey) -> None:
    strong = service.key(scopes=["jobs:read", "jobs:write"])
    mine, path = bearer(make_key("ana", *MANAGER)), f"{KEYS}/{strong['id']}/rotate"
    assert service.client.post(path, json={}, headers=mine).status_code == 403
    assert service.client.get(f"{KEYS}/{strong['id']}").json()["replaced_by"] is None


def test_a_key_that_expires_makes_none_that_lives_longer(client: TestClient, core: Core) -> None:
    mine = bearer(lent(core, 7)[1])
    for ends, status in ((None, 422), (in_days(8), 422), (in_days(6), 201)):
        response = client.post(KEYS, json={**ORDER, "expires_at": ends}, headers=mine)
        assert response.status_code == status
        if status == 422:
            assert response.json()["errors"][0]["code"] == "too_late"


def test_nor_by_rotating_itself(client: TestClient, core: Core) -> None:
    key_id, token = lent(core, 7)
    with core.database.write() as session:  # made long ago
        aged = now(session) - timedelta(days=90)
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(created_at=aged))
    made = client.post(f"{KEYS}/{key_id}/rotate", json={}, headers=bearer(token)).json()
    assert seconds_from_now(made["expires_at"]) == pytest.approx(7 * 86_400, abs=600)


def test_what_rotates_another_gives_it_its_length_of_life_again(
    client: TestClient, core: Core
) -> None:
    key_id, token = lent(core, 5)
    with core.database.write() as session:
        aged = now(session) - timedelta(days=25)
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(created_at=aged))
    made = client.post(f"{KEYS}/{key_id}/rotate", json={"overlap_seconds": 600}).json()
    assert seconds_from_now(made["expires_at"]) == pytest.approx(30 * 86_400, abs=600)
    old = client.get(f"{KEYS}/{key_id}").json()
    assert seconds_from_now(old["expires_at"]) == pytest.approx(600, abs=300)
    assert (old["name"], old["scopes"]) == (made["name"], made["scopes"])
    assert opens(client, token) == opens(client, made["token"]) == 200


def test_both_keys_live_until_the_overlap_ends(service: Service) -> None:
    old = service.key()
    response = service.client.post(f"{KEYS}/{old['id']}/rotate", json={})
    new = response.json()
    assert response.status_code == 201
    assert response.headers["Location"] == f"{KEYS}/{new['id']}"
    assert new["expires_at"] is None
    seen = service.client.get(f"{KEYS}/{old['id']}").json()
    assert seen["replaced_by"] == new["id"]
    assert seconds_from_now(seen["expires_at"]) == pytest.approx(86_400, abs=600)
    assert opens(service.client, old["token"]) == opens(service.client, new["token"]) == 200
    newest = service.client.post(f"{KEYS}/{new['id']}/rotate", json={"overlap_seconds": 0}).json()
    assert opens(service.client, new["token"]) == 401
    assert opens(service.client, newest["token"]) == 200


@pytest.mark.parametrize("seconds", [-1, 604_801, 0.5, "1d"])
def test_an_overlap_is_from_nothing_to_a_week(service: Service, seconds: object) -> None:
    path = f"{KEYS}/{service.key()['id']}/rotate"
    assert service.client.post(path, json={"overlap_seconds": seconds}).status_code == 422


def test_a_key_is_rotated_once_and_only_while_it_lives(service: Service) -> None:
    rotated, revoked = service.key()["id"], service.key()["id"]
    new = service.client.post(f"{KEYS}/{rotated}/rotate", json={}).json()
    assert service.client.delete(f"{KEYS}/{revoked}").status_code == 204
    for key_id in (rotated, revoked):
        response = service.client.post(f"{KEYS}/{key_id}/rotate", json={})
        assert (response.status_code, response.json()["code"]) == (409, "conflict")
        assert (new["id"] in response.json()["detail"]) == (key_id == rotated)


def test_a_revoked_key_opens_nothing_from_that_moment(service: Service) -> None:
    made = service.key()
    path = f"{KEYS}/{made['id']}"
    assert opens(service.client, made["token"]) == 200
    assert service.client.delete(path).status_code == 204
    assert opens(service.client, made["token"]) == 401
    first = service.client.get(path).json()["revoked_at"]
    assert service.client.delete(path).status_code == 204
    assert service.client.get(path).json()["revoked_at"] == first is not None


def test_lists_hold_ones_own_keys_only(service: Service, stranger: dict[str, str]) -> None:
    mine = {key["id"] for key in service.client.get(KEYS).json()["data"]}
    theirs = {key["id"] for key in service.client.get(KEYS, headers=stranger).json()["data"]}
    assert len(mine) == len(theirs) == 1
    assert not mine & theirs


def test_a_use_is_seen_once_it_has_been_written_down(service: Service) -> None:
    made = service.key()
    opens(service.client, made["token"])
    assert service.client.get(f"{KEYS}/{made['id']}").json()["last_used_at"] is None
    service.core.usage.flush()
    assert service.client.get(f"{KEYS}/{made['id']}").json()["last_used_at"] is not None


def test_the_first_key_can_give_everything(service: Service) -> None:
    assert service.key(scopes=list(ALL))["scopes"] == sorted(ALL)
