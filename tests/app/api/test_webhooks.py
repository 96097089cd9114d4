"""/v1/webhook-endpoints: made, changed, rotated, tested, and what was delivered."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api.core import Core
from tests.app.service import Service
from tests.app.webhooks.nets import Names
from tests.app.webhooks.ssrf_corpus import REFUSED
from tests.support import wait_until

PATH = "/v1/webhook-endpoints"
URL = "https://hooks.example.com/tdmr"


def test_an_endpoint_is_made_with_a_secret_that_is_shown_once(
    client: TestClient, core: Core
) -> None:
    response = client.post(PATH, json={"url": URL, "events": ["job.failed", "job.failed"]})
    made = response.json()
    assert (response.status_code, response.headers["Location"]) == (201, f"{PATH}/{made['id']}")
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made == {
        "id": made["id"],
        "url": URL,
        "description": "",
        "events": ["job.failed"],
        "enabled": True,
        "disabled_reason": None,
        "failing_since": None,
        "created_at": made["created_at"],
    }
    assert client.get(f"{PATH}/{made['id']}").json() == made
    page = client.get(PATH).json()
    assert page == {"data": [made], "has_more": False, "next_cursor": None}
    patched = client.patch(f"{PATH}/{made['id']}", json={"description": "mine"})
    assert patched.json() == {**made, "description": "mine"}
    client.post(f"{PATH}/{made['id']}/test")
    deliveries = client.get(f"{PATH}/{made['id']}/deliveries")
    assert not any(secret in each.text for each in (patched, deliveries))


@pytest.mark.parametrize(
    "case",
    [each for each in REFUSED if "\x00" not in each.url],
    ids=lambda each: f"{each.why}: {each.url[:40]!a}",
)
def test_an_address_that_isnt_public_is_told_at_once(
    client: TestClient, core: Core, case: Any
) -> None:
    core.sender.network.guard._resolve = Names(case.answers)
    response = client.post(PATH, json={"url": case.url})
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["pointer"] == "/url"
    assert error["code"] in (case.code, "string_too_long")
    assert client.get(PATH).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/url"),
        ({"url": 1}, "/url"),
        ({"url": None}, "/url"),
        ({"url": URL, "events": []}, "/events"),
        ({"url": URL, "events": ["job.exploded"]}, "/events/0"),
        ({"url": URL, "events": ["ping"]}, "/events/0"),
        ({"url": URL, "description": "x" * 501}, "/description"),
        ({"url": URL, "description": "\x07"}, "/description"),
        ({"url": URL, "secret": "whsec_mine"}, "/secret"),
    ],
)
def test_what_cant_be_taken_is_pointed_at(
    client: TestClient, body: dict[str, Any], pointer: str
) -> None:
    response = client.post(PATH, json=body)
    assert response.status_code == 422
    assert [each["pointer"] for each in response.json()["errors"]] == [pointer]


def test_asked_for_twice_it_is_made_once(client: TestClient, core: Core) -> None:
    headers = {"Idempotency-Key": "one"}
    first = client.post(PATH, json={"url": URL}, headers=headers)
    core.sender.network.guard._resolve = Names([])  # a repeat needs no name server
    again = client.post(PATH, json={"url": URL}, headers=headers)
    assert first.json() == again.json()
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    other = client.post(PATH, json={"url": URL + "/2"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(client.get(PATH).json()["data"]) == 1


def test_there_may_be_so_many_and_no_more(service: Service, core: Core) -> None:
    for _ in range(core.settings.max_webhook_endpoints):
        made = service.endpoint()
    response = service.client.post(PATH, json={"url": URL})
    assert (response.status_code, response.json()["code"]) == (409, "too_many_endpoints")
    service.client.delete(f"{PATH}/{made['id']}")
    service.endpoint()


def test_lists_come_in_pages(service: Service) -> None:
    made = [service.endpoint()["id"] for _ in range(3)]
    first = service.client.get(PATH, params={"limit": 2})
    assert 'rel="next"' in first.headers["Link"]
    second = service.client.get(PATH, params={"after": first.json()["next_cursor"]})
    found = [each["id"] for page in (first, second) for each in page.json()["data"]]
    assert found == sorted(made, reverse=True)


def test_a_url_is_checked_when_it_is_changed_too(service: Service) -> None:
    made = service.endpoint()
    path = f"{PATH}/{made['id']}"
    response = service.client.patch(path, json={"url": "https://127.0.0.1/", "description": "x"})
    assert (response.status_code, response.json()["errors"][0]["code"]) == (422, "not_public")
    assert service.client.get(path).json()["description"] == ""
    moved = service.client.patch(path, json={"url": URL + "/2", "events": ["job.failed"]})
    assert (moved.json()["url"], moved.json()["events"]) == (URL + "/2", ["job.failed"])
    assert service.client.patch(path, json={"events": None}).json()["events"] is None
    assert service.client.patch(path, json={"url": None}).status_code == 422


def test_a_disabled_endpoint_is_told_nothing_until_it_is_enabled(service: Service) -> None:
    made = service.endpoint()
    path = f"{PATH}/{made['id']}"
    ping = service.ping(path)
    assert service.client.patch(path, json={"enabled": False}).json()["enabled"] is False
    for act in ("test", f"deliveries/{ping['id']}/replay"):
        assert service.client.post(f"{path}/{act}").status_code == 409
    assert service.client.patch(path, json={"enabled": True}).json()["enabled"] is True
    assert service.client.post(f"{path}/test").status_code == 202


def test_a_new_secret_is_another(service: Service) -> None:
    made = service.endpoint()
    rotated = service.client.post(f"{PATH}/{made['id']}/rotate-secret").json()
    assert rotated["secret"] != made["secret"]
    assert {**rotated, "secret": ""} == {**made, "secret": ""}


def test_the_log_of_deliveries_says_how_each_went_and_replays(service: Service, core: Core) -> None:
    made = service.endpoint()
    path = f"{PATH}/{made['id']}"
    first, second = service.ping(path), service.ping(path)
    assert (first["event_type"], first["status"], first["attempts"]) == ("ping", "pending", [])

    def failed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = service.client.get(
            f"{path}/deliveries", params={"status": "failed"}
        ).json()["data"]
        return found

    wait_until(lambda: len(failed()) == 2)
    assert [each["id"] for each in failed()] == sorted([first["id"], second["id"]], reverse=True)
    (attempt,) = failed()[0]["attempts"]
    assert (attempt["status_code"], attempt["error"], attempt["answer"]) == (
        None,
        "connection",
        None,
    )
    assert (failed()[0]["next_attempt_at"], attempt["at"][-1]) == (None, "Z")
    replayed = service.client.post(f"{path}/deliveries/{first['id']}/replay")
    assert (replayed.status_code, replayed.json()["id"]) == (202, first["id"])
    wait_until(lambda: sum(len(each["attempts"]) for each in failed()) == 3)
    page = service.client.get(f"{path}/deliveries", params={"limit": 1})
    assert page.json()["has_more"] is True
    assert service.client.post(f"{path}/deliveries/msg_none/replay").status_code == 404


def test_a_deleted_endpoint_is_gone(service: Service) -> None:
    made = service.endpoint()
    path = f"{PATH}/{made['id']}"
    service.ping(path)
    assert service.client.delete(path).status_code == 204
    assert service.client.get(path).status_code == 404
    assert service.client.get(f"{path}/deliveries").status_code == 404
    assert service.client.delete(path).status_code == 404


def test_the_sender_lives_as_long_as_the_server(client: TestClient, core: Core) -> None:
    names = {thread.name for thread in threading.enumerate()}
    assert "webhooks" in names
    core.sender.stop()
    assert "webhooks" not in {thread.name for thread in threading.enumerate()}
