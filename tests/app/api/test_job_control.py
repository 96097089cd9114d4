"""/v1/jobs: paused and gone on with, called off, within a budget, in a queue."""

from __future__ import annotations

from typing import Any

import pytest

from app.jobs import boards, fleet, ledger
from app.jobs.claims import Claim
from tests.app.jobs import steps
from tests.app.service import Service

PARTIAL = {"stage": "distil", "step": 5, "steps": 20, "missing": []}


@pytest.fixture(autouse=True)
def _places_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as they were half a second ago."""
    monkeypatch.setattr(boards, "OLDEST_SECONDS", 0.0)


def post(service: Service, job_id: str, act: str, status: int = 202) -> dict[str, Any]:
    """Ask for something to be done to a job."""
    response = service.client.post(f"/v1/jobs/{job_id}/{act}")
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    return found


def worker(service: Service, **given: Any) -> None:
    """A worker reports."""
    options = {"host": "h", "pid": 1, "device": "cpu", "queues": ["default"], "kinds": ["distil"]}
    with service.core.database.write() as session:
        fleet.report(session, "w1", **{**options, **given})


def pausing(service: Service) -> Claim:
    claim = service.running()
    assert post(service, claim.job_id, "pause")["status"] == "pausing"
    return claim


def test_a_queued_job_is_paused_and_resumed(service: Service) -> None:
    job = service.job()
    paused = post(service, job["id"], "pause")
    assert (paused["status"], paused["queue_position"]) == ("paused", None)
    assert paused["waiting_reason"] is None
    assert paused["pause_requested_at"].endswith("Z")
    assert service.seen(job["id"]) == paused
    assert service.claim("distil") is None
    resumed = post(service, job["id"], "resume")
    assert (resumed["status"], resumed["queue_position"]) == ("queued", 1)
    assert resumed["pause_requested_at"] is None
    assert service.claim("distil") is not None


def test_a_running_job_is_paused_once_its_state_is_safe(service: Service) -> None:
    claim = pausing(service)
    assert post(service, claim.job_id, "pause")["status"] == "pausing"
    service.do(ledger.save_checkpoint, claim, steps.student(7))
    service.do(ledger.paused, claim)
    found = service.seen(claim.job_id)
    assert (found["status"], found["checkpoint"]) == ("paused", {"stage": "distil", "step": 7})
    assert post(service, claim.job_id, "resume")["checkpoint"] == found["checkpoint"]


def test_what_is_still_pausing_cant_be_resumed_yet(service: Service) -> None:
    claim = pausing(service)
    response = service.client.post(f"/v1/jobs/{claim.job_id}/resume")
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert response.headers["Retry-After"] == "2"
    assert post(service, claim.job_id, "cancel")["status"] == "pausing"


@pytest.mark.parametrize("act", ["resume", "retry"])
def test_what_runs_cant_be_resumed_or_retried(service: Service, act: str) -> None:
    claim = service.running()
    response = service.client.post(f"/v1/jobs/{claim.job_id}/{act}", json={})
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert "running" in response.json()["detail"]
    assert "Retry-After" not in response.headers


@pytest.mark.parametrize("act", ["cancel", "pause", "resume"])
def test_what_has_ended_stays_as_it_is(service: Service, act: str) -> None:
    for end, state in ((None, "cancelled"), (steps.FINAL, "failed")):
        claim = service.running()
        if end is None:
            service.do(ledger.cancelled, claim)
        else:
            service.do(ledger.fail, claim, end)
        before = service.seen(claim.job_id)
        assert before["status"] == state
        assert state in post(service, claim.job_id, act, 409)["detail"]
        assert service.seen(claim.job_id) == before


@pytest.mark.parametrize("act", ["cancel", "pause", "resume"])
def test_what_is_being_packaged_isnt_stopped(service: Service, act: str) -> None:
    claim = service.running()
    with service.core.database.write() as session:
        ledger.trained(session, claim, {"trained": []}, ring=False)
    assert "packaging" in post(service, claim.job_id, act, 409)["detail"]
    found = service.seen(claim.job_id)
    assert (found["status"], found["ended_at"], found["student_id"]) == ("packaging", None, None)
    student = service.package()
    found = service.seen(claim.job_id)
    assert (found["status"], found["student_id"]) == ("succeeded", student["id"])
    assert (found["partial"], student["partial"]) == (False, False)


def test_the_package_itself_isnt_seen_by_its_owner(service: Service) -> None:
    claim = service.running()
    with service.core.database.write() as session:
        ledger.trained(session, claim, {"trained": []}, ring=False)
    package = service.claim("package")
    assert package is not None
    assert [job["id"] for job in service.client.get("/v1/jobs").json()["data"]] == [claim.job_id]
    assert service.client.get(f"/v1/jobs/{package.job_id}").status_code == 404
    for act in ("cancel", "pause", "resume"):
        post(service, package.job_id, act, 404)


def test_a_paused_job_is_cancelled_at_once_and_leaves_its_student(service: Service) -> None:
    claim = pausing(service)
    service.do(ledger.save_checkpoint, claim, steps.student())
    service.do(ledger.paused, claim)
    found = post(service, claim.job_id, "cancel")
    assert (found["status"], found["student_id"], found["partial"]) == ("cancelled", None, None)
    student = service.package(PARTIAL)
    found = service.seen(claim.job_id)
    assert (found["status"], found["student_id"]) == ("cancelled", student["id"])
    assert (found["partial"], student["partial"]) == (True, True)
    listed = service.client.get("/v1/students").json()["data"]
    assert [(each["id"], each["partial"]) for each in listed] == [(student["id"], True)]


def test_a_waiting_job_tells_what_it_waits_for(service: Service) -> None:
    first = service.job()
    second = service.job(dataset_id=first["dataset_id"])
    assert (first["waiting_reason"], second["waiting_reason"]) == ("no_worker", "no_worker")
    worker(service)
    assert service.seen(first["id"])["waiting_reason"] == "next"
    listed = {job["id"]: job for job in service.client.get("/v1/jobs").json()["data"]}
    assert listed[second["id"]]["waiting_reason"] == "behind_others"
    assert listed[second["id"]]["queue_position"] == 2
    claim = service.claim("distil")
    assert claim is not None
    assert service.seen(first["id"])["waiting_reason"] is None
    service.do(ledger.fail, claim, steps.PASSING)
    steps.put_off(service.core.database, claim.job_id)
    found = service.seen(first["id"])
    assert (found["status"], found["waiting_reason"]) == ("queued", "backing_off")
    assert found["queue_position"] is None


def test_terms_come_back_as_they_were_given(service: Service) -> None:
    service.core.settings.queues = ("default", "big")
    job = service.job(queue="big", priority=-3, budget={"max_seconds": 90})
    assert (job["queue"], job["priority"], job["budget"]) == ("big", -3, {"max_seconds": 90.0})
    assert service.seen(job["id"]) == job
    assert job["spent_seconds"] == 0
    worker(service, queues=["default"])
    assert service.seen(job["id"])["waiting_reason"] == "no_worker"
    worker(service, queues=["big"])
    assert service.seen(job["id"])["waiting_reason"] == "next"


def test_without_terms_there_is_no_limit(service: Service) -> None:
    job = service.job()
    assert (job["queue"], job["priority"], job["budget"]) == ("default", 0, None)
    assert (job["retry_of"], job["checkpoint"], job["partial"]) == (None, None, None)


def test_the_seconds_of_work_are_told(service: Service) -> None:
    claim = service.running(budget={"max_seconds": 60})
    steps.pass_time(service.core.database, 100)
    answer = steps.beat(service.core.database, claim)
    assert answer.budget_spent
    assert 100 <= service.seen(claim.job_id)["spent_seconds"] < 130
    service.do(ledger.budget_spent, claim)
    found = service.seen(claim.job_id)
    assert (found["status"], found["failure"]["code"]) == ("failed", "budget_exhausted")
    assert found["failure"]["change"] == {"budget": {"max_seconds": 240}}
    assert 100 <= found["spent_seconds"] < 130


def test_an_unknown_queue_is_answered_with_those_there_are(service: Service) -> None:
    service.core.settings.queues = ("default", "big")
    response = service.client.post("/v1/jobs", json=service.order(queue="bog"))
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    (item,) = response.json()["errors"]
    assert (item["pointer"], item["code"]) == ("/queue", "unknown_queue")
    assert item["allowed"] == ["default", "big"]


@pytest.mark.parametrize(
    ("more", "pointer", "code"),
    [
        ({"priority": 101}, "/priority", "less_than_equal"),
        ({"priority": -101}, "/priority", "greater_than_equal"),
        ({"priority": 0.5}, "/priority", "int_from_float"),
        ({"budget": {"max_seconds": 0}}, "/budget/max_seconds", "greater_than"),
        ({"budget": {"max_seconds": 1e9}}, "/budget/max_seconds", "less_than_equal"),
        ({"budget": {}}, "/budget/max_seconds", "missing"),
        ({"budget": {"hours": 1}}, "/budget/max_seconds", "missing"),
        ({"budget": 5}, "/budget", "model_attributes_type"),
        ({"queue": None}, "/queue", "string_type"),
        ({"queue": "x" * 41}, "/queue", "string_too_long"),
    ],
)
def test_wrong_terms_are_pointed_at(
    service: Service, more: dict[str, Any], pointer: str, code: str
) -> None:
    response = service.client.post("/v1/jobs", json=service.order(dataset_id="ds_x", **more))
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    first = response.json()["errors"][0]
    assert (first["pointer"], first["code"]) == (pointer, code)


def test_the_list_can_be_narrowed_to_the_new_states(service: Service) -> None:
    claim = pausing(service)
    other = service.job(dataset_id=claim.dataset_id)
    post(service, other["id"], "pause")
    for status, job_id in (("pausing", claim.job_id), ("paused", other["id"])):
        found = service.client.get(f"/v1/jobs?status={status}").json()["data"]
        assert [job["id"] for job in found] == [job_id]


def test_what_was_done_to_a_job_is_in_its_log(service: Service) -> None:
    claim = pausing(service)
    service.do(ledger.save_checkpoint, claim, steps.checkpoint(3))
    service.do(ledger.paused, claim)
    post(service, claim.job_id, "resume")
    log = service.client.get(f"/v1/jobs/{claim.job_id}/events").json()["data"]
    assert [each["type"] for each in log] == [
        *("submitted", "started", "pause_requested", "checkpoint", "paused", "resumed"),
    ]
    assert log[3]["data"] == {"stage": "reprogram", "step": 3}


def test_a_resumed_job_rings_when_there_is_a_broker(service: Service) -> None:
    job = service.job()
    post(service, job["id"], "pause")
    service.core.settings.broker_url = "redis://127.0.0.1:1/0"
    post(service, job["id"], "resume")
    assert steps.bells(service.core.database) == [("tdmr.default.distil", job["id"])]
