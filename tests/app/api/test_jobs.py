"""/v1/jobs: ordered once, looked at in pages, called off."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.jobs import ledger
from tdmr.errors import Failure
from tests.app.datasets.zips import good_files, pack
from tests.app.service import MODELS, Service

JSON = {"Content-Type": "application/json"}


def refused(service: Service, **more: Any) -> dict[str, Any]:
    """Order something that can't be had; give the problem."""
    before = service.rows()["jobs"] if "dataset_id" in more else None
    response = service.client.post("/v1/jobs", json=service.order(**more))
    assert response.status_code >= 400
    if before is not None:
        assert service.rows()["jobs"] == before
    problem: dict[str, Any] = response.json()
    return problem


def test_an_order_is_queued_as_it_was_given(service: Service) -> None:
    order = service.order(
        options={"seed": 3, "views": {"count": 5}}, baselines=["kd"], metadata={"who": "me"}
    )
    response = service.client.post("/v1/jobs", json=order)
    job = response.json()
    assert response.status_code == 201
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert job["status"] == "queued"
    assert job["options"]["seed"] == 3
    assert job["options"]["views"]["count"] == 5
    assert job["options"]["training"]["steps"] == 2000
    assert (job["baselines"], job["metadata"]) == (["kd"], {"who": "me"})
    assert (job["attempt"], job["queue_position"], job["student_id"]) == (0, 1, None)
    assert job["created_at"].endswith("Z")
    assert service.client.get(response.headers["Location"]).json() == job


def test_a_running_job_tells_where_it_is(service: Service) -> None:
    job = service.job()
    claim = service.claim("distil")
    assert claim is not None
    stage = {"name": "distil", "index": 4, "count": 8, "progress": 0.25}
    progress = {"event": "progress", "stage": stage, "step": 5, "steps": 20}
    with service.core.database.write() as session:
        told = {**progress, "losses": {"loss": 1.5}, "eta_seconds": 7.5}
        ledger.beat(session, claim, lease_seconds=60, progress=told)
    found = service.client.get(f"/v1/jobs/{job['id']}").json()
    assert found["status"] == "running"
    assert (found["stage"], found["step"], found["steps"]) == (stage, 5, 20)
    assert (found["losses"], found["eta_seconds"], found["attempt"]) == ({"loss": 1.5}, 7.5, 1)
    assert found["queue_position"] is None
    assert found["started_at"].endswith("Z")


def test_a_failed_job_tells_why(service: Service) -> None:
    job = service.job()
    claim = service.claim("distil")
    assert claim is not None
    failure = Failure(code="out_of_memory", user_error=True, stage="cache", detail="d", log=["x"])
    with service.core.database.write() as session:
        ledger.fail(session, claim, failure)
    found = service.client.get(f"/v1/jobs/{job['id']}").json()
    assert found["status"] == "failed"
    assert found["failure"] == failure.model_dump()


def test_a_finished_job_names_its_student(service: Service) -> None:
    student = service.student()
    found = service.client.get(f"/v1/jobs/{student['job_id']}").json()
    assert (found["status"], found["student_id"]) == ("succeeded", student["id"])


def test_an_unknown_model_is_named_with_those_near_it(service: Service) -> None:
    problem = refused(service, foundation="vit_smal_patch16_224", student="resnet81")
    assert (problem["status"], problem["code"]) == (422, "unknown_model")
    first, second = problem["errors"]
    assert (first["pointer"], first["code"]) == ("/foundation", "unknown_model")
    assert "vit_small_patch16_224" in first["allowed"]
    assert "vit_small_patch16_224" in first["detail"]
    assert second["pointer"] == "/student"
    assert "resnet18" in second["allowed"]


@pytest.mark.parametrize(
    "name",
    ["local-dir:/etc", "/etc/passwd", "hf-hub:timm/x", "../x", "a\x00b", "\u00fc", "x" * 300],
)
@pytest.mark.parametrize("role", ["foundation", "student"])
def test_only_names_of_the_catalog_are_taken(service: Service, role: str, name: str) -> None:
    problem = refused(service, **{role: name})
    assert (problem["status"], problem["code"]) == (422, "unknown_model")
    assert [each["pointer"] for each in problem["errors"]] == [f"/{role}"]


def test_a_dataset_must_be_ready_and_what_to_do_is_said(service: Service) -> None:
    made = service.upload()
    problem = refused(service, dataset_id=made["id"])
    assert (problem["status"], problem["code"]) == (409, "dataset_not_ready")
    assert "processing" in problem["detail"]
    bad = service.dataset(pack(good_files(3, "a")))
    problem = refused(service, dataset_id=bad["id"])
    assert (problem["status"], problem["code"]) == (409, "dataset_not_ready")
    assert "invalid" in problem["detail"]
    assert "findings" in problem["detail"]


BODIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown-field": ({"colour": 1}, "/colour", "unknown_field"),
    "unknown-option": ({"options": {"sed": 1}}, "/options/sed", "unknown_field"),
    "unknown-deep": ({"options": {"views": {"a/b~": 1}}}, "/options/views/a~1b~0", "unknown_field"),
    "wrong-type": ({"options": {"seed": "x"}}, "/options/seed", "wrong_type"),
    "out-of-range": (
        {"options": {"views": {"count": 0}}},
        "/options/views/count",
        "greater_than_equal",
    ),
    "no-range": ({"options": {"views": {"scale_min": 2}}}, "/options/views", "value_error"),
    "baseline": ({"baselines": ["magic"]}, "/baselines/0", "literal_error"),
    "baseline-twice": ({"baselines": ["kd", "kd"]}, "", "value_error"),
    "metadata-list": ({"metadata": []}, "/metadata", "dict_type"),
    "metadata-number": ({"metadata": {"a": 1}}, "/metadata/a", "string_type"),
    "metadata-nul": ({"metadata": {"a": "\x00"}}, "/metadata/a", "value_error"),
    "metadata-many": ({"metadata": {str(n): "" for n in range(33)}}, "/metadata", "too_long"),
    "no-name": ({"student": ""}, "/student", "string_too_short"),
    "null": ({"foundation": None}, "/foundation", "string_type"),
    "strange-id": ({"dataset_id": "a\x00b"}, "/dataset_id", "string_pattern_mismatch"),
}


@pytest.mark.parametrize(("more", "pointer", "code"), BODIES.values(), ids=BODIES.keys())
def test_a_wrong_order_is_pointed_at(
    service: Service, more: dict[str, Any], pointer: str, code: str
) -> None:
    problem = refused(service, **{"dataset_id": "ds_x", **more})
    assert (problem["status"], problem["code"]) == (422, "invalid")
    assert (problem["errors"][0]["pointer"], problem["errors"][0]["code"]) == (pointer, code)


def test_everything_wrong_is_said_at_once(service: Service) -> None:
    response = service.client.post("/v1/jobs", json={"student": 5, "colour": 1})
    found = {each["pointer"]: each["code"] for each in response.json()["errors"]}
    assert found == {
        "/dataset_id": "missing",
        "/foundation": "missing",
        "/student": "string_type",
        "/colour": "unknown_field",
    }


def test_an_unknown_field_is_answered_with_those_there_are(service: Service) -> None:
    problem = refused(service, dataset_id="ds_x", options={"views": {"cuont": 5}})
    assert "count" in problem["errors"][0]["allowed"]


NOT_JSON = {
    "empty": b"",
    "text": b"hello",
    "cut": b'{"dataset_id": ',
    "not-a-number": b'{"options": {"seed": NaN}}',
    "infinity": b'{"a": -Infinity}',
    "twice": b'{"a": 1, "a": 2}',
    "latin-1": '{"a": "\u00fc"}'.encode("latin-1"),
    "deep": b"[" * 200_000,
    "long-number": b"[" + b"9" * 5000 + b"]",
    "comma": b"{},",
}


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_a_body_that_isnt_json_is_400(service: Service, content: bytes) -> None:
    response = service.client.post("/v1/jobs", content=content, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (400, "not_json")


def test_numbers_that_overflow_and_lone_surrogates_are_refused(service: Service) -> None:
    for content in (
        b'{"dataset_id":"d","foundation":"f","student":"s","options":{"training":{"ema":1e999}}}',
        b'{"dataset_id":"d","foundation":"f","student":"s","metadata":{"a":"\\ud800"}}',
    ):
        response = service.client.post("/v1/jobs", content=content, headers=JSON)
        assert (response.status_code, response.json()["code"]) == (422, "invalid")


@pytest.mark.parametrize("content", [b"[]", b'"x"', b"null", b"5"])
def test_json_that_is_no_object(service: Service, content: bytes) -> None:
    response = service.client.post("/v1/jobs", content=content, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert response.json()["errors"][0]["pointer"] == ""


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_type_of_body_is_415(service: Service, kind: str) -> None:
    response = service.client.post("/v1/jobs", content=b"{}", headers={"Content-Type": kind})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


def test_a_body_over_the_cap_is_413_however_it_comes(service: Service) -> None:
    content = json.dumps({"metadata": {"a": "x" * (2 << 20)}}).encode()
    for body in (content, iter([content[: 1 << 20], content[1 << 20 :]])):
        response = service.client.post("/v1/jobs", content=body, headers=JSON)
        assert (response.status_code, response.json()["code"]) == (413, "too_large")


def test_the_same_order_twice_is_one_job(service: Service) -> None:
    order, headers = service.order(metadata={"a": "1", "b": "2"}), {"Idempotency-Key": "k"}
    first = service.client.post("/v1/jobs", json=order, headers=headers)
    again = service.client.post(
        "/v1/jobs", content=json.dumps(order, sort_keys=True), headers={**headers, **JSON}
    )
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotency-Replayed"] == "true"
    other = service.client.post("/v1/jobs", json={**order, "baselines": []}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(service.client.get("/v1/jobs").json()["data"]) == 1


def test_many_at_the_same_moment_are_still_one_job(service: Service) -> None:
    order, headers = service.order(), {"Idempotency-Key": "k"}
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(
                lambda _: service.client.post("/v1/jobs", json=order, headers=headers), range(16)
            )
        )
    assert {response.status_code for response in found} == {201}
    assert len({response.json()["id"] for response in found}) == 1
    assert sum("Idempotency-Replayed" not in response.headers for response in found) == 1


def test_the_list_comes_in_pages_newest_first(service: Service) -> None:
    dataset_id = service.dataset()["id"]
    made = [service.job(dataset_id=dataset_id)["id"] for _ in range(5)]
    seen, path = [], "/v1/jobs?limit=2"
    for _ in range(3):
        response = service.client.get(path)
        page = response.json()
        seen += [job["id"] for job in page["data"]]
        if page["has_more"]:
            path = response.headers["Link"].removeprefix("<").partition(">")[0]
            assert response.headers["Link"].endswith('rel="next"')
            assert page["next_cursor"] in path
    assert seen == sorted(made, reverse=True)
    assert (page["has_more"], page["next_cursor"]) == (False, None)
    assert "Link" not in response.headers


def test_the_list_can_be_narrowed_to_a_state(service: Service) -> None:
    student = service.student()
    queued = service.job()
    for status, job_id in (("succeeded", student["job_id"]), ("queued", queued["id"])):
        found = service.client.get(f"/v1/jobs?status={status}").json()["data"]
        assert [job["id"] for job in found] == [job_id]
    assert service.client.get("/v1/jobs?status=done").status_code == 422


def test_checks_of_datasets_arent_jobs_here(service: Service) -> None:
    service.upload()
    assert service.client.get("/v1/jobs").json()["data"] == []
    claim = service.claim("ingest")
    assert claim is not None
    assert service.client.get(f"/v1/jobs/{claim.job_id}").status_code == 404
    assert service.client.post(f"/v1/jobs/{claim.job_id}/cancel").status_code == 404


@pytest.mark.parametrize("limit", ["0", "101", "x", "-1", "1.5"])
def test_a_limit_that_cant_be(service: Service, limit: str) -> None:
    response = service.client.get(f"/v1/jobs?limit={limit}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/query/limit"


@pytest.mark.parametrize("cursor", ["x", "%00", "====", "am9iXzE", "\u00fc", "am9i" * 40])
def test_a_cursor_that_isnt_ours(service: Service, cursor: str) -> None:
    for path in ("/v1/jobs", "/v1/datasets", "/v1/students"):
        response = service.client.get(f"{path}?after={cursor}")
        assert response.status_code == 422
        assert response.json()["errors"][0]["code"] == "invalid_cursor"


def test_the_log_comes_in_order_and_can_be_followed(service: Service) -> None:
    job = service.job()
    path = f"/v1/jobs/{job['id']}/events"
    first = service.client.get(path).json()
    assert [(each["seq"], each["type"]) for each in first["data"]] == [(1, "submitted")]
    service.claim("distil")
    more = service.client.get(f"{path}?after={first['next_cursor']}").json()
    assert [each["type"] for each in more["data"]] == ["started"]
    last = service.client.get(f"{path}?after={more['next_cursor']}").json()
    assert (last["data"], last["next_cursor"]) == ([], more["next_cursor"])
    page = service.client.get(f"{path}?limit=1")
    assert page.json()["has_more"]
    assert page.links["next"]["url"] == f"{path}?limit=1&after={page.json()['next_cursor']}"


def test_a_queued_job_is_cancelled_at_once(service: Service) -> None:
    path = f"/v1/jobs/{service.job()['id']}"
    response = service.client.post(f"{path}/cancel")
    assert (response.status_code, response.json()["status"]) == (202, "cancelled")
    again = service.client.post(f"{path}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert service.client.get(path).json()["ended_at"].endswith("Z")


def test_a_running_job_is_asked_to_stop(service: Service) -> None:
    path = f"/v1/jobs/{service.job()['id']}"
    service.claim("distil")
    for _ in range(2):
        response = service.client.post(f"{path}/cancel")
        assert (response.status_code, response.json()["status"]) == (202, "running")
        assert response.json()["cancel_requested_at"].endswith("Z")


def test_an_order_rings_when_there_is_a_broker(service: Service) -> None:
    order = {**MODELS, "dataset_id": service.dataset()["id"]}
    service.core.settings.broker_url = "redis://127.0.0.1:1/0"
    service.client.post("/v1/jobs", json=order)
    assert service.rows()["outbox"] == 1
