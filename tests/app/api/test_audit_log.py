"""The audit log: every route that changes something leaves its row, by construction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app import audit
from app.access.scopes import Scope
from app.api.core import CoreDep
from app.api.guard import GuardedRoute, needs, router
from app.audit import Act
from app.db import Database
from app.main import MODULES
from tests.app.api.test_access import WITH_A_BODY, WITH_HEADERS, path_of
from tests.app.api.tus import GOOD, begin, send
from tests.app.conftest import MakeKey
from tests.app.service import OCTETS, WEIGHTS, ZIP, Service
from tests.support import make_dataset

LOG = "/v1/audit-log"
UNSAFE = [
    (method, route.path, route.name)
    for module in MODULES
    for route in module.routes.routes
    if isinstance(route, GuardedRoute) and not route.safe
    for method in sorted(route.methods or ())
]
# What a route needs that makes something of a body; all others are called with their path's ids.
MAKING: dict[str, Callable[[Service], dict[str, Any]]] = {
    "create_dataset": lambda _: {"content": GOOD, "headers": ZIP},
    "create_upload": lambda _: {"headers": {"Tus-Resumable": "1.0.0", "Upload-Length": "9"}},
    "create_job": lambda service: {"json": service.order()},
    "create_sweep": lambda service: {
        "json": {
            "dataset_id": service.dataset()["id"],
            "foundation": "letters_vit",
            "students": ["test_resnet", "resnet18"],
        }
    },
    "create_api_key": lambda _: {
        "json": {"name": "ci", "scopes": ["jobs:read"], "expires_at": None}
    },
    "create_model": lambda _: {
        "params": {"architecture": "test_vit"},
        "content": WEIGHTS,
        "headers": OCTETS,
    },
    "create_webhook_endpoint": lambda _: {"json": {"url": "https://1.1.1.1/hook"}},
}
SUBJECTS = ("dataset", "upload", "job", "key", "endpoint", "delivery", "model", "student", "sweep")
CHANGES_NOTHING = {"predict"}
PIECES = {"append_to_upload"}  # noted when it makes the dataset: tested below
NOTED = [each for each in UNSAFE if each[2] not in CHANGES_NOTHING | PIECES]


def entries(service: Service, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.client.get(LOG, params=query).json()["data"]
    return found


def ready(service: Service, name: str, target: str) -> None:
    """Bring the thing, or the newest job, where this can be done to it."""
    act, _, noun = name.partition("_")
    if noun == "job" and act in ("delete", "restore"):
        assert service.client.post(f"/v1/jobs/{target.split('/')[3]}/cancel").status_code == 202
    if act == "restore":
        assert service.client.delete(target.removesuffix("/restore")).status_code == 204
    if name not in ("resume_job", "retry_job"):
        return
    (job,) = service.client.get("/v1/jobs?limit=1").json()["data"]
    before = {"resume_job": "pause", "retry_job": "cancel"}[name]
    response = service.client.post(f"/v1/jobs/{job['id']}/{before}")
    assert response.status_code == 202, response.text


@pytest.mark.parametrize(("method", "path", "name"), NOTED, ids=[name for *_, name in NOTED])
def test_whatever_changes_something_is_noted_with_who_and_what(
    service: Service, method: str, path: str, name: str
) -> None:
    target = path_of(path, service)
    ready(service, name, target)
    body: dict[str, Any] = {"json": {}} if path in WITH_A_BODY else {}
    body = MAKING.get(name, lambda _: body)(service)
    headers = {**WITH_HEADERS.get(f"{method} {path}", {}), **body.pop("headers", {})}
    before = {entry["id"] for entry in entries(service, limit="100")}
    response = service.client.request(
        method, target, headers={**headers, "X-Request-Id": "mine"}, **body
    )
    assert response.status_code in (200, 201, 202, 204), f"{name}: say in MAKING how it's asked for"
    (entry,) = [one for one in entries(service, limit="100") if one["id"] not in before]
    assert (entry["action"], entry["request_id"]) == (name, "mine")
    assert entry["address"] == "testclient"
    assert entry["key_id"].startswith("key_")
    assert entry["at"].endswith("Z")
    made = response.json()["id"] if response.status_code != 204 else None
    assert entry["subject_type"] in SUBJECTS
    assert entry["subject_id"] in (made, *target.split("/"))
    assert name not in ("create_job", "retry_job") or entry["subject_id"] == made


def test_a_route_that_never_heard_of_the_log_is_noted_too(app: FastAPI, service: Service) -> None:
    routes = router()

    @routes.post("/things/{thing_id}/change")
    @needs(Scope.JOBS_WRITE)
    def change_thing(core: CoreDep, thing_id: str) -> None:
        make_dataset(core.database)

    app.router.routes.extend(routes.routes)
    assert service.client.post("/v1/things/th_1/change").status_code == 200
    (entry,) = entries(service)
    assert (entry["action"], entry["subject_type"]) == ("change_thing", "thing")
    assert (entry["subject_id"], entry["details"]) == ("th_1", None)


def test_what_is_refused_or_only_looked_at_isnt_noted(
    service: Service, stranger: dict[str, str]
) -> None:
    job = service.job()["id"]
    service.client.post(f"/v1/jobs/{job}/cancel")
    before = entries(service)
    assert service.client.post(f"/v1/jobs/{job}/pause").status_code == 409
    assert service.client.post("/v1/jobs", json={}).status_code == 422
    assert service.client.post(f"/v1/jobs/{job}/cancel", headers=stranger).status_code == 404
    assert service.client.post(f"/v1/jobs/{job}/cancel", headers={"Authorization": "Bearer x"})
    service.client.get(f"/v1/jobs/{job}")
    assert entries(service) == before
    assert service.client.get(LOG, headers=stranger).json()["data"] == []


def test_a_repeat_isnt_noted(service: Service) -> None:
    order = service.order()
    for _ in range(2):
        service.client.post("/v1/jobs", json=order, headers={"Idempotency-Key": "k"})
    assert len(entries(service, action="create_job")) == 1
    key, dataset = service.key()["id"], service.dataset()["id"]
    for _ in range(2):
        service.client.delete(f"/v1/api-keys/{key}")
        service.client.delete(f"/v1/datasets/{dataset}")
    for _ in range(2):
        service.client.post(f"/v1/datasets/{dataset}/restore")
    for action in ("delete_dataset", "restore_dataset"):
        assert len(entries(service, action=action)) == 1
    assert len(entries(service, action="revoke_api_key")) == 1


def test_an_upload_is_noted_when_it_begins_and_when_it_is_a_dataset(service: Service) -> None:
    url = begin(service)
    for start, stop in ((0, 100), (100, 200), (200, len(GOOD))):
        assert send(service, url, start, GOOD[start:stop]).status_code == 204
    dataset = service.client.get(url).json()["dataset_id"]
    found = [(one["action"], one["subject_id"]) for one in entries(service)]
    assert found == [("append_to_upload", dataset), ("create_upload", url.rpartition("/")[2])]


def test_an_upload_that_is_refused_at_once_is_noted_and_that_it_went(service: Service) -> None:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "9"}
    headers["Content-Type"] = "application/offset+octet-stream"
    response = service.client.post("/v1/uploads", content=b"no zip at", headers=headers)
    assert response.status_code == 422
    assert [one["details"] for one in entries(service)] == [{"removed": True}, {"bytes": 9}]


def test_it_can_be_asked_what_was_done_to_one_thing(service: Service) -> None:
    job = service.job()["id"]
    for act in ("pause", "resume", "cancel"):
        service.client.post(f"/v1/jobs/{job}/{act}")
    first = service.client.get(LOG, params={"subject_id": job, "limit": 2})
    assert [one["action"] for one in first.json()["data"]] == ["cancel_job", "resume_job"]
    second = service.client.get(first.links["next"]["url"]).json()
    assert [one["action"] for one in second["data"]] == ["pause_job", "create_job"]
    assert len(entries(service, subject_id=job, action="pause_job")) == 1
    assert service.client.get(f"{LOG}?subject_id=%00").status_code == 422


def test_it_says_which_key_it_was(client: TestClient, make_key: MakeKey, service: Service) -> None:
    made = service.key(scopes=["keys:write", "jobs:read"])
    headers = {"Authorization": f"Bearer {made['token']}"}
    order = {"name": "x", "scopes": ["jobs:read"], "expires_at": None}
    child = client.post("/v1/api-keys", json=order, headers=headers).json()
    (entry,) = entries(service, subject_id=child["id"])
    assert entry["key_id"] == made["id"]
    assert entry["details"] == {"name": "x", "scopes": ["jobs:read"]}


def test_the_row_and_the_deed_are_one_transaction(any_database: Database) -> None:
    any_database.before_commit = audit.note

    def count() -> int:
        with any_database.read() as session:
            return len(audit.newest(session, "ana", None, 10))

    def fail() -> None:
        with any_database.write() as session:
            audit.about(session, "job", "job_1")
            session.flush()
            raise RuntimeError("not today")

    act = Act(owner="ana", action="test")
    with audit.acting(act):
        with pytest.raises(RuntimeError, match="not today"):
            fail()
        assert (count(), act.noted) == (0, False)
        make_dataset(any_database)  # says nothing, and is noted
        assert (count(), act.noted) == (1, True)
        make_dataset(any_database)  # the act has its row
        assert count() == 1
        with any_database.write() as session:
            audit.about(session, "job", "job_1")
            audit.about(session, "job", "job_2")
        assert count() == 3
    make_dataset(any_database)  # nobody acts: a worker, or the server itself
    assert count() == 3
