"""429: a key that asks too often, an address with wrong keys, an owner whose quota is used up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.access.limits import Cost
from app.api.guard import GuardedRoute
from app.db import Database
from app.main import MODULES, create_app
from app.settings import Settings
from tests.app.api.test_access import ROUTES
from tests.app.api.tus import GOOD
from tests.app.conftest import MakeKey
from tests.app.service import ZIP, Service


@contextmanager
def serving(settings: Settings, token: str, **changed: Any) -> Iterator[Service]:
    """A server of other settings, and Ana's shortcuts through it."""
    app = create_app(settings.model_copy(update=changed))
    with TestClient(app, headers={"Authorization": f"Bearer {token}"}) as client:
        yield Service(client, app.state.core)


def problem(response: Any, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json()["code"]) == (429, code), response.text
    assert int(response.headers["Retry-After"]) >= 1
    found: dict[str, Any] = response.json()
    return found


def test_every_route_has_the_class_that_its_work_costs() -> None:
    routes = [route for module in MODULES for route in module.routes.routes]
    costs = {route.name: route.cost for route in routes if isinstance(route, GuardedRoute)}
    of_their_own = {name: cost for name, cost in costs.items() if cost in ("upload", "predict")}
    assert of_their_own == {
        "create_dataset": Cost.UPLOAD,
        "create_model": Cost.UPLOAD,
        "create_upload": Cost.UPLOAD,
        "append_to_upload": Cost.UPLOAD,
        "predict": Cost.PREDICT,
    }
    assert {costs["get_job"], costs["upload_options"], costs["healthz"]} == {Cost.READ}
    assert {costs["create_job"], costs["revoke_api_key"]} == {Cost.WRITE}
    assert len(ROUTES) >= len(costs)


def test_an_endpoint_that_checks_the_key_itself_counts_too(
    settings: Settings, database: Database, make_key: MakeKey
) -> None:
    with serving(settings, make_key("ana"), rate_read="2/day", rate_failures="1/day") as service:
        answers = [service.client.get("/v1/jobs/job_none") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [404, 404, 429]
        problem(answers[2], "rate_limited")
        wrong = {"Authorization": "Bearer tdmr_wrong"}
        answers = [service.client.get("/v1/jobs/job_none", headers=wrong) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [401, 429]


def test_a_key_that_asks_too_often_is_told_when_to_come_again(
    settings: Settings, database: Database, make_key: MakeKey
) -> None:
    other = {"Authorization": f"Bearer {make_key('ana')}"}
    with serving(settings, make_key("ana"), rate_read="3/day") as service:
        answers = [service.client.get("/v1/jobs") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
        problem(answers[3], "rate_limited")
        assert service.client.head("/v1/jobs").status_code == 429
        assert service.client.get("/v1/jobs", headers=other).status_code == 200
        assert service.client.post("/v1/jobs", json={}).status_code == 422  # another class
        assert service.client.get("/healthz").status_code == 200


def test_wrong_keys_from_one_address_are_limited_and_right_ones_never(
    settings: Settings, database: Database, make_key: MakeKey
) -> None:
    wrong = {"Authorization": f"Bearer tdmr_{'A' * 43}"}
    with serving(settings, make_key("ana"), rate_failures="3/day") as service:
        answers = [service.client.get("/v1/jobs", headers=wrong) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [401] * 3 + [429] * 2
        problem(answers[3], "rate_limited")
        assert service.client.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize("retry", [False, True])
def test_a_job_too_many_waits_outside(
    settings: Settings, database: Database, make_key: MakeKey, retry: bool
) -> None:
    with serving(settings, make_key("ana"), quota_waiting_jobs=2) as service:
        order = service.order()
        first = service.job(**order)["id"]
        headers = {"Idempotency-Key": "k"}
        assert service.client.post("/v1/jobs", json=order, headers=headers).status_code == 201
        path, body = "/v1/jobs", order
        if retry:
            service.client.post(f"/v1/jobs/{first}/cancel")
            service.job(**order)
            path, body = f"/v1/jobs/{first}/retry", {}
        before = service.rows()
        found = problem(service.client.post(path, json=body), "quota_exceeded")
        (item,) = found["errors"]
        assert (item["code"], item["limit"], item["used"]) == ("waiting_jobs", 2, 2)
        assert service.rows() == before
        # What was made already is found, and other owners aren't concerned.
        assert service.client.post("/v1/jobs", json=order, headers=headers).status_code == 201
        assert service.client.get("/v1/quotas").json()["waiting_jobs"] == {"limit": 2, "used": 2}


def test_an_upload_too_many_leaves_nothing(
    settings: Settings, database: Database, make_key: MakeKey
) -> None:
    room = len(GOOD) + 10
    with serving(settings, make_key("ana"), quota_stored_bytes=room) as service:
        repeat = {"Idempotency-Key": "k"}
        made = service.upload(GOOD, **repeat)
        before, files = service.rows(), service.files()
        chunked = (GOOD[start : start + 100] for start in range(0, len(GOOD), 100))
        for content in (GOOD, chunked):
            response = service.client.post("/v1/datasets", content=content, headers=ZIP)
            (item,) = problem(response, "quota_exceeded")["errors"]
            assert (item["code"], item["limit"]) == ("stored_bytes", room)
        begun = service.client.post(
            "/v1/uploads", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "11"}
        )
        problem(begun, "quota_exceeded")
        assert (service.rows(), service.files()) == (before, files)
        assert service.upload(GOOD, **repeat)["id"] == made["id"]
        service.begun(10)
        used = service.client.get("/v1/quotas").json()["stored_bytes"]
        assert used == {"limit": room, "used": room}


def test_no_limit_reads_as_null(settings: Settings, database: Database, make_key: MakeKey) -> None:
    with serving(settings, make_key("ana"), quota_device_hours=0) as service:
        found = service.client.get("/v1/quotas").json()
        assert found["device_hours"] == {"limit": None, "used": 0}
