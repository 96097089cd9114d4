"""The access matrix: every route, with no key, with a wrong one, and with somebody else's."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from app.access.scopes import ALL, Scope
from app.api.guard import GuardedRoute
from app.main import MODULES
from tests.app.conftest import MakeKey
from tests.app.service import MODELS, ZIP, Service

OPEN = {"/healthz", "/readyz", "/docs", "/openapi.json"}
OPERATORS = {"/metrics"}  # by a token of their own: see test_metrics.py
ROUTES = [
    (method, route.path, route.scope)
    for module in MODULES
    for route in module.routes.routes
    if isinstance(route, GuardedRoute)
    for method in sorted(route.methods or ())
]
WITH_A_BODY = {
    "/v1/jobs/{job_id}/retry",
    "/v1/api-keys/{key_id}/rotate",
    "/v1/webhook-endpoints/{endpoint_id}",
}
TUS = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0"}
WITH_HEADERS = {
    "DELETE /v1/uploads/{upload_id}": TUS,
    "PATCH /v1/uploads/{upload_id}": {**TUS, "Content-Type": "application/offset+octet-stream"},
}
ALLOWED = (200, 201, 202, 204, 409)
GUARDED = [each for each in ROUTES if each[1] not in OPEN | OPERATORS]
NO_KEYS = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Basic dXNlcjpwYXNz",
    "tdmr_" + "A" * 43,
    "Bearer tdmr_" + "A" * 43,
    "Bearer \xff\xfe",
]
IDS = [f"{method} {path}" for method, path, _ in GUARDED]


def path_of(path: str, service: Service) -> str:
    """The path with ids that are Ana's."""
    ids = {
        "dataset_id": lambda: service.dataset()["id"],
        "model_id": lambda: service.model()["id"],
        "job_id": lambda: service.job()["id"],
        "student_id": lambda: service.student()["id"],
        "sweep_id": lambda: service.sweep()["id"],
        "key_id": lambda: service.key()["id"],
        "upload_id": lambda: service.begun(1000),
        "name": lambda: "config.json",
        "number": lambda: "0",
        "endpoint_id": lambda: service.endpoint()["id"],
        "delivery_id": lambda: service.ping(path)["id"],
    }
    for name, make in ids.items():
        if f"{{{name}}}" in path:
            path = path.replace(f"{{{name}}}", make())
    return path


def test_every_route_is_guarded_and_only_four_are_open(app: FastAPI) -> None:
    assert all(isinstance(route, GuardedRoute) for route in app.routes)
    assert len(app.routes) == len(ROUTES)
    assert {path for _, path, scope in ROUTES if scope is None} == OPEN | OPERATORS
    assert {route.path for route in app.routes if route.operators} == OPERATORS


def test_the_matrix_has_every_thing_that_can_be_done_to_a_job() -> None:
    acts = {
        path.rpartition("/")[2] for _, path, _ in ROUTES if path.startswith("/v1/jobs/{job_id}/")
    }
    assert acts == {"cancel", "events", "pause", "restore", "resume", "retry"}


def test_a_route_that_declares_no_scope_cant_be_made() -> None:
    router = APIRouter(route_class=GuardedRoute)
    with pytest.raises(TypeError, match="declares no scope"):

        @router.get("/v1/forgotten")
        def forgotten() -> None:
            pass


@pytest.mark.parametrize(("method", "path", "scope"), GUARDED, ids=IDS)
def test_without_a_valid_key_every_route_is_401(
    anonymous: TestClient, method: str, path: str, scope: Scope
) -> None:
    path = path.replace("{", "").replace("}", "")
    for header in NO_KEYS:
        headers = {} if header is None else {"Authorization": header.encode("latin-1")}
        response = anonymous.request(method, path, headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        if method == "GET":
            assert anonymous.head(path, headers=headers).status_code == 401


@pytest.mark.parametrize(("method", "path", "scope"), GUARDED, ids=IDS)
def test_a_key_without_the_scope_is_403(
    anonymous: TestClient, make_key: MakeKey, method: str, path: str, scope: Scope
) -> None:
    key = make_key("ana", *(each for each in ALL if each is not scope))
    response = anonymous.request(
        method,
        path.replace("{", "").replace("}", ""),
        headers={"Authorization": f"Bearer {key}"},
    )
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert scope.value in response.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [each for each in GUARDED if "{" in each[1]],
    ids=[name for name in IDS if "{" in name],
)
def test_what_is_somebody_elses_reads_as_missing(
    service: Service, stranger: dict[str, str], method: str, path: str, scope: Scope
) -> None:
    mine = path_of(path, service)
    body = {"json": {}} if path in WITH_A_BODY else {}
    more = WITH_HEADERS.get(f"{method} {path}", {})
    response = service.client.request(method, mine, headers={**more, **stranger}, **body)
    assert service.client.request(method, mine, headers=more, **body).status_code in ALLOWED
    none = path.replace("{number}", "0").replace("{", "").replace("}", "")
    missing = service.client.request(method, none, headers=more, **body)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    ours = {"detail": response.json()["detail"], "title": response.json()["title"]}
    assert ours == {name: missing.json()[name] for name in ours}


def test_lists_hold_ones_own_only(service: Service, stranger: dict[str, str]) -> None:
    service.student()
    service.endpoint()
    service.model()
    own = "/v1/models?owned=true"
    for path in ("/v1/datasets", "/v1/jobs", "/v1/students", "/v1/webhook-endpoints", own):
        assert len(service.client.get(path).json()["data"]) == 1
        assert service.client.get(path, headers=stranger).json()["data"] == []


def test_a_job_cant_be_ordered_on_somebody_elses_dataset(
    service: Service, stranger: dict[str, str]
) -> None:
    order = {"dataset_id": service.dataset()["id"], **MODELS}
    theirs = service.client.post("/v1/jobs", json=order, headers=stranger)
    missing = service.client.post("/v1/jobs", json={**order, "dataset_id": "ds_none"})
    assert theirs.status_code == missing.status_code == 422
    assert theirs.json()["errors"] == missing.json()["errors"]
    assert theirs.json()["errors"][0]["pointer"] == "/dataset_id"


def test_keys_are_checked_before_anything_else_is_read(anonymous: TestClient) -> None:
    for headers, content in ((ZIP, b"x" * 10), ({"Content-Type": "application/json"}, b"{")):
        for path in ("/v1/datasets?no=1", "/v1/jobs?no=1"):
            assert anonymous.post(path, headers=headers, content=content).status_code == 401
