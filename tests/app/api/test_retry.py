"""POST /v1/jobs/{id}/retry: the same order again, with changes, from where it stopped."""

from __future__ import annotations

from typing import Any

import pytest

from app.api.retrying import merge
from app.jobs import ledger
from app.models import Job
from tdmr.errors import Failure
from tests.app.api.test_job_control import PARTIAL, post
from tests.app.jobs import steps
from tests.app.service import Service

OPTIONS = {"seed": 3, "training": {"steps": 50, "batch_size": 8}}


@pytest.fixture
def failed(service: Service) -> dict[str, Any]:
    """A job that has failed behind a checkpoint of its first stage."""
    service.core.settings.queues = ("default", "big")
    claim = service.running(
        options=OPTIONS,
        baselines=["kd"],
        metadata={"who": "me"},
        queue="big",
        priority=5,
        budget={"max_seconds": 60},
    )
    service.do(ledger.save_checkpoint, claim, steps.checkpoint(4))
    service.do(ledger.fail, claim, steps.BROKEN)
    return service.seen(claim.job_id)


def retry(
    service: Service, job_id: str, status: int = 202, key: str | None = None, **patch: Any
) -> dict[str, Any]:
    headers = {} if key is None else {"Idempotency-Key": key}
    response = service.client.post(f"/v1/jobs/{job_id}/retry", json=patch, headers=headers)
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    return found


SAME = (
    *("dataset_id", "foundation", "student", "options", "baselines"),
    *("metadata", "queue", "priority", "budget", "max_attempts"),
)


def test_a_retry_is_a_new_job_with_the_same_order(service: Service, failed: dict[str, Any]) -> None:
    response = service.client.post(f"/v1/jobs/{failed['id']}/retry", json={})
    job = response.json()
    assert response.status_code == 202
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["retry_of"]) == ("queued", failed["id"])
    assert {name: job[name] for name in SAME} == {name: failed[name] for name in SAME}
    assert (job["attempt"], job["failure"], job["spent_seconds"]) == (0, None, 0)
    assert service.seen(job["id"]) == job
    assert service.seen(failed["id"]) == failed


def test_a_retry_that_changes_nothing_needs_no_body(
    service: Service, failed: dict[str, Any]
) -> None:
    path, headers = f"/v1/jobs/{failed['id']}/retry", {"Idempotency-Key": "k"}
    bare = service.client.post(path, headers=headers)
    assert bare.status_code == 202, bare.text
    assert {name: bare.json()[name] for name in SAME} == {name: failed[name] for name in SAME}
    assert service.client.post(path, content=b"x").status_code == 415
    empty = service.client.post(path, json={}, headers=headers)
    assert (empty.status_code, empty.json()["id"]) == (202, bare.json()["id"])


def test_it_goes_on_from_where_the_other_stopped(service: Service, failed: dict[str, Any]) -> None:
    job = retry(service, failed["id"])
    assert job["checkpoint"] == failed["checkpoint"] == {"stage": "reprogram", "step": 4}
    claim = service.claim("distil")
    assert claim is not None
    assert claim.checkpoint == steps.checkpoint(4).model_dump(mode="json")


def test_other_options_begin_again(service: Service, failed: dict[str, Any]) -> None:
    job = retry(service, failed["id"], options={"training": {"batch_size": 4}})
    expected = {**failed["options"]["training"], "batch_size": 4}
    assert job["options"] == {**failed["options"], "training": expected}
    assert job["checkpoint"] is None
    assert {name: job[name] for name in SAME if name != "options"} == {
        name: failed[name] for name in SAME if name != "options"
    }


def test_the_same_options_said_again_are_no_change(
    service: Service, failed: dict[str, Any]
) -> None:
    job = retry(service, failed["id"], options={"training": {"batch_size": 8}}, baselines=["kd"])
    assert job["options"] == failed["options"]
    assert job["checkpoint"] == failed["checkpoint"]


def test_other_terms_are_no_other_training(service: Service, failed: dict[str, Any]) -> None:
    terms = {"queue": "default", "priority": -1, "budget": {"max_seconds": 240.0}}
    job = retry(service, failed["id"], **terms)
    assert {name: job[name] for name in terms} == terms
    assert job["checkpoint"] == failed["checkpoint"]


def test_on_more_devices_it_is_the_same_training(service: Service, failed: dict[str, Any]) -> None:
    job = retry(service, failed["id"], options={"devices": 2})
    assert job["options"] == {**failed["options"], "devices": 2}
    assert job["checkpoint"] == failed["checkpoint"]


def test_null_takes_a_field_back_to_its_default(service: Service, failed: dict[str, Any]) -> None:
    patch = {"budget": None, "priority": None, "queue": None, "baselines": None}
    job = retry(service, failed["id"], options={"training": None}, **patch)
    assert (job["budget"], job["priority"], job["queue"]) == (None, 0, "default")
    assert (job["options"]["seed"], job["options"]["training"]["steps"]) == (3, 2000)
    assert job["baselines"] != ["kd"]
    assert job["checkpoint"] is None


def test_what_a_failure_says_to_change_can_be_sent_as_it_is(service: Service) -> None:
    claim = service.running(options=OPTIONS, budget={"max_seconds": 60})
    service.do(ledger.budget_spent, claim)
    change = service.seen(claim.job_id)["failure"]["change"]
    assert retry(service, claim.job_id, **change)["budget"] == {"max_seconds": 240}
    less = {"options": {"training": {"batch_size": 4}}}
    claim = service.running(options=OPTIONS)
    failure = Failure(code="out_of_memory", user_error=True, detail="d", change=less)
    service.do(ledger.fail, claim, failure)
    change = service.seen(claim.job_id)["failure"]["change"]
    assert retry(service, claim.job_id, **change)["options"]["training"]["batch_size"] == 4


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "range": (
        {"options": {"training": {"batch_size": 1}}},
        *("/options/training/batch_size", "greater_than_equal"),
    ),
    "type": ({"options": {"seed": "x"}}, "/options/seed", "wrong_type"),
    "unknown": ({"options": {"training": {"bs": 1}}}, "/options/training/bs", "unknown_field"),
    "whole": ({"options": {"views": 5}}, "/options/views", "model_type"),
    "together": (
        {"options": {"views": {"scale_min": 1.0, "scale_max": 0.5}}},
        *("/options/views", "value_error"),
    ),
    "options": ({"options": []}, "/options", "dict_type"),
    "baseline": ({"baselines": ["magic"]}, "/baselines/0", "literal_error"),
    "priority": ({"priority": 1000}, "/priority", "less_than_equal"),
    "budget": ({"budget": {"max_seconds": -1}}, "/budget/max_seconds", "greater_than"),
    "queue": ({"queue": "bog"}, "/queue", "unknown_queue"),
    "dataset": ({"dataset_id": "ds_x"}, "/dataset_id", "unknown_field"),
    "student": ({"student": "test_vit"}, "/student", "unknown_field"),
}


@pytest.mark.parametrize(("patch", "pointer", "code"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_change_is_pointed_at_and_nothing_is_made(
    service: Service, failed: dict[str, Any], patch: dict[str, Any], pointer: str, code: str
) -> None:
    before = service.rows()
    problem = retry(service, failed["id"], 422, **patch)
    first = problem["errors"][0]
    assert (problem["code"], first["pointer"], first["code"]) == ("invalid", pointer, code)
    assert service.rows() == before


def test_an_unknown_queue_is_answered_with_those_there_are(
    service: Service, failed: dict[str, Any]
) -> None:
    (item,) = retry(service, failed["id"], 422, queue="bog")["errors"]
    assert item["allowed"] == ["default", "big"]


def test_the_same_request_twice_is_one_job(service: Service, failed: dict[str, Any]) -> None:
    path, headers = f"/v1/jobs/{failed['id']}/retry", {"Idempotency-Key": "k"}
    patch = {"priority": 1, "options": {"seed": 4}}
    first = service.client.post(path, json=patch, headers=headers)
    again = service.client.post(path, json=dict(reversed(patch.items())), headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert len(service.client.get("/v1/jobs").json()["data"]) == 2


def test_a_replay_comes_whatever_became_of_the_old_job(
    service: Service, failed: dict[str, Any]
) -> None:
    first = retry(service, failed["id"], key="k")
    with service.core.database.write() as session:
        session.get_one(Job, failed["id"]).max_attempts += 1
    service.claim("distil")
    again = retry(service, failed["id"], key="k")
    assert (again["id"], again["status"]) == (first["id"], "running")


def test_a_key_is_for_one_request_to_one_address(service: Service, failed: dict[str, Any]) -> None:
    retry(service, failed["id"], key="k")
    assert retry(service, failed["id"], 422, key="k", priority=1)["code"] == (
        "idempotency_key_reused"
    )
    order = service.order(dataset_id=failed["dataset_id"])
    made = service.client.post("/v1/jobs", json=order, headers={"Idempotency-Key": "k"})
    assert (made.status_code, made.json()["code"]) == (422, "idempotency_key_reused")


def test_without_a_key_each_request_is_a_job(service: Service, failed: dict[str, Any]) -> None:
    assert retry(service, failed["id"])["id"] != retry(service, failed["id"])["id"]


def test_somebody_elses_job_cant_be_retried(
    service: Service, failed: dict[str, Any], stranger: dict[str, str]
) -> None:
    before = service.rows()
    for job_id in (failed["id"], "job_none"):
        path = f"/v1/jobs/{job_id}/retry"
        response = service.client.post(path, json={}, headers=stranger)
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert service.rows() == before


def test_only_what_came_to_nothing_can_be_retried(service: Service) -> None:
    job = service.job()
    assert "queued" in retry(service, job["id"], 409)["detail"]
    post(service, job["id"], "pause")
    assert "paused" in retry(service, job["id"], 409)["detail"]
    post(service, job["id"], "cancel")
    assert retry(service, job["id"])["retry_of"] == job["id"]
    assert service.claim("distil") is not None
    student = service.student()
    assert "succeeded" in retry(service, student["job_id"], 409)["detail"]


def test_a_partial_student_can_be_trained_to_its_end(service: Service) -> None:
    claim = service.running(budget={"max_seconds": 60})
    service.do(ledger.save_checkpoint, claim, steps.student(5))
    service.do(ledger.budget_spent, claim)
    assert "packaging" in retry(service, claim.job_id, 409)["detail"]
    service.package(PARTIAL)
    found = service.seen(claim.job_id)
    assert (found["status"], found["partial"], found["failure"]) == ("succeeded", True, None)
    job = retry(service, claim.job_id, budget=None)
    assert (job["checkpoint"], job["budget"]) == ({"stage": "distil", "step": 5}, None)


def test_a_retry_can_be_retried(service: Service, failed: dict[str, Any]) -> None:
    second = retry(service, failed["id"])
    post(service, second["id"], "cancel")
    third = retry(service, second["id"])
    assert (third["retry_of"], third["checkpoint"]) == (second["id"], failed["checkpoint"])


def test_a_retry_rings_when_there_is_a_broker(service: Service, failed: dict[str, Any]) -> None:
    service.core.settings.broker_url = "redis://127.0.0.1:1/0"
    job = retry(service, failed["id"])
    assert steps.bells(service.core.database) == [("tdmr.big.distil", job["id"])]


# The examples of RFC 7396, appendix A, of which the patch is an object.
EXAMPLES: list[tuple[Any, dict[str, Any], Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "expected"), EXAMPLES)
def test_a_merge_patch_does_what_its_rfc_says(
    target: Any, patch: dict[str, Any], expected: Any
) -> None:
    assert merge(target, patch) == expected
