"""/v1/sweeps: ordered together or not at all, looked at, called off."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from app.jobs import ledger
from app.models import Job
from tests.app.service import METRICS, Service

STUDENTS = ["test_resnet", "resnet18", "mobilenetv3_small_100"]


def order(service: Service, **more: Any) -> dict[str, Any]:
    if "dataset_id" not in more:
        more["dataset_id"] = service.dataset()["id"]
    return {"foundation": "letters_vit", "students": STUDENTS, **more}


def sweep(service: Service, **more: Any) -> dict[str, Any]:
    return service.sweep(**{"students": STUDENTS, **more})


def again(service: Service, made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = service.client.get(f"/v1/sweeps/{made['id']}").json()
    return found


def test_its_jobs_are_ordinary_ones_that_name_it(service: Service) -> None:
    body = order(
        service,
        name="which?",
        options={"seed": 3},
        baselines=["kd"],
        budget={"max_seconds": 60},
        priority=2,
        metadata={"who": "me"},
    )
    response = service.client.post("/v1/sweeps", json=body)
    made = response.json()
    assert response.headers["Location"] == f"/v1/sweeps/{made['id']}"
    assert (made["name"], made["status"], made["counts"]) == ("which?", "open", {"queued": 3})
    assert (made["students"], made["foundation"]) == (STUDENTS, "letters_vit")
    assert (made["options"]["seed"], made["baselines"]) == (3, ["kd"])
    assert [job["student"] for job in made["jobs"]] == STUDENTS
    assert [job["waiting_reason"] for job in made["jobs"]] == ["no_worker", "sweep", "sweep"]
    assert (made["result"]["rows"], made["foundation_forwards"]) == ([], None)
    jobs = [service.seen(job["job_id"]) for job in made["jobs"]]
    for job, student in zip(jobs, STUDENTS, strict=True):
        assert (job["sweep_id"], job["student"]) == (made["id"], student)
        assert (job["options"]["seed"], job["baselines"], job["priority"]) == (3, ["kd"], 2)
        assert (job["budget"], job["metadata"]) == ({"max_seconds": 60}, {"who": "me"})
    assert [job["estimate"]["cache"] for job in jobs] == ["cold", "warm", "warm"]
    assert service.client.get(response.headers["Location"]).json() == made


def test_a_repeat_makes_nothing(service: Service) -> None:
    body, headers = order(service), {"Idempotency-Key": "k"}
    first = service.client.post("/v1/sweeps", json=body, headers=headers)
    rows = service.rows()
    second = service.client.post("/v1/sweeps", json=body, headers=headers)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert (second.status_code, second.json()["id"]) == (201, first.json()["id"])
    assert service.rows() == rows
    other = {**body, "students": STUDENTS[:1]}
    response = service.client.post("/v1/sweeps", json=other, headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_reused")
    job = service.order(dataset_id=body["dataset_id"])
    response = service.client.post("/v1/jobs", json=job, headers=headers)
    assert response.json()["code"] == "idempotency_key_reused"


def test_all_of_it_or_nothing_and_all_that_is_wrong(service: Service) -> None:
    dataset_id = service.dataset()["id"]
    rows = service.rows()
    students = ["resnet81", "test_resnet", "../x"]
    wrong = order(service, dataset_id=dataset_id, students=students, queue="none")
    response = service.client.post("/v1/sweeps", json=wrong)
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    found = [(each["pointer"], each["code"]) for each in response.json()["errors"]]
    assert found == [
        ("/queue", "unknown_queue"),
        ("/students/0", "unknown_model"),
        ("/students/2", "unknown_model"),
    ]
    service.core.settings.quota_waiting_jobs = 2
    response = service.client.post("/v1/sweeps", json=order(service, dataset_id=dataset_id))
    assert (response.status_code, response.json()["code"]) == (429, "quota_exceeded")
    assert service.rows() == rows
    service.core.settings.quota_waiting_jobs = 3
    sweep(service, dataset_id=dataset_id)


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"students": []}, "/students"),
        ({"students": ["resnet18"] * 2}, "/students"),
        ({"students": [f"s{n}" for n in range(33)]}, "/students"),
        ({"baselines": ["kd", "kd"]}, "/baselines"),
        ({"student": "resnet18"}, "/student"),
        ({"name": "\x00"}, "/name"),
        ({"options": {"sed": 1}}, "/options/sed"),
    ],
)
def test_a_wrong_order_is_pointed_at(service: Service, more: dict[str, Any], pointer: str) -> None:
    response = service.client.post("/v1/sweeps", json=order(service, dataset_id="ds_x", **more))
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert response.json()["errors"][0]["pointer"] == pointer


def test_its_students_make_a_pareto_table(service: Service) -> None:
    made = sweep(service, students=STUDENTS[:2])
    figures = {"test_resnet": (0.8, 1.0), "resnet18": (0.9, 4.0)}
    for name in figures:
        claim = service.claim("distil")
        assert claim is not None
        assert claim.spec["student"] == name
        with service.core.database.write() as session:
            ledger.trained(session, claim, {"trained": []}, ring=False)
        service.package(metrics=measured(*figures[name], name))
    found = again(service, made)
    assert (found["status"], found["counts"]) == ("ended", {"succeeded": 2})
    assert found["foundation_forwards"] == 14
    assert found["result"]["cost"] == "latency_p50_ms"
    rows = found["result"]["rows"]
    assert [(row["student"], row["on_front"]) for row in rows] == [
        ("resnet18", True),
        ("test_resnet", True),
    ]
    assert (rows[0]["accuracy"], rows[0]["latency_p50_ms"]) == (0.9, 4.0)
    assert (rows[0]["interval"], rows[0]["file_bytes"], rows[0]["params"]) == ([0.8, 0.95], 77, 9)
    assert {job["student_id"] for job in found["jobs"]} == {row["student_id"] for row in rows}
    response = service.client.post(f"/v1/sweeps/{made['id']}/cancel")
    assert (response.status_code, response.json()["code"]) == (409, "conflict")


def measured(accuracy: float, ms: float, name: str) -> dict[str, Any]:
    latency = {"p50_ms": ms, "p95_ms": ms, "threads": 1}
    onnx = {"published": True, "bytes": 77, "latency": latency}
    machine = {"cpu": "c", "cores": 2, "system": "s", "onnxruntime": "1"}
    return {
        **METRICS,
        "accuracy": accuracy,
        "student": {"params": 9, "architecture": name, "input_size": 32},
        "exports": {"formats": {"onnx": onnx}, "machine": machine},
        "foundation": {"forwards": 7},
    }


def test_it_is_called_off_as_a_whole(service: Service) -> None:
    made = sweep(service)
    claim = service.claim("distil")
    assert claim is not None
    response = service.client.post(f"/v1/sweeps/{made['id']}/cancel")
    assert response.status_code == 202
    assert response.json()["counts"] == {"running": 1, "cancelled": 2}
    assert service.seen(claim.job_id)["cancel_requested_at"] is not None
    assert service.client.post(f"/v1/sweeps/{made['id']}/cancel").status_code == 202
    service.do(ledger.cancelled, claim)
    assert again(service, made)["status"] == "ended"


def test_a_retry_belongs_to_it(service: Service) -> None:
    made = sweep(service)
    first = made["jobs"][0]["job_id"]
    service.client.post(f"/v1/jobs/{first}/cancel")
    retried = service.client.post(f"/v1/jobs/{first}/retry", json={}).json()
    assert (retried["sweep_id"], retried["waiting_reason"]) == (made["id"], "sweep")
    found = again(service, made)
    assert (len(found["jobs"]), found["jobs"][-1]["retry_of"]) == (4, first)
    with service.core.database.read() as session:
        waits = select(Job.waits_for).where(Job.id == retried["id"])
        assert session.scalar(waits) == made["jobs"][1]["job_id"]


def test_pages_of_sweeps(service: Service, stranger: dict[str, str]) -> None:
    dataset_id = service.dataset()["id"]
    ids = [sweep(service, dataset_id=dataset_id, students=STUDENTS[:1])["id"] for _ in range(2)]
    first = service.client.get("/v1/sweeps?limit=1").json()
    assert [row["id"] for row in first["data"]] == [max(ids)]
    assert first["data"][0]["counts"] == {"queued": 1}
    second = service.client.get(f"/v1/sweeps?limit=1&after={first['next_cursor']}").json()
    assert ([row["id"] for row in second["data"]], second["has_more"]) == ([min(ids)], False)
    assert service.client.get("/v1/sweeps", headers=stranger).json()["data"] == []
