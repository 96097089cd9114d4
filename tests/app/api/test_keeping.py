"""DELETE and restore over HTTP: what is deleted is gone for its owner, and comes back."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from app.jobs import ledger
from app.keeping import freeing
from app.models import Dataset, Job, Student
from tests.app.api.test_job_control import PARTIAL
from tests.app.jobs import steps
from tests.app.service import MODELS, Service
from tests.worker import scenes

MAKE = {
    "datasets": lambda service: service.dataset(),
    "models": lambda service: service.model(),
    "students": lambda service: service.student(),
    "jobs": lambda service: ended(service),
}
KINDS = sorted(MAKE)


def ended(service: Service) -> dict[str, Any]:
    """A job that was called off, with a log."""
    job = service.job(metadata={"who": "me"})
    service.client.post(f"/v1/jobs/{job['id']}/cancel")
    return service.seen(job["id"])


def delete(service: Service, path: str, status: int = 204, **query: str) -> Any:
    response = service.client.delete(path, params=query)
    assert response.status_code == status, response.text
    return response.json() if response.content else None


def gone(service: Service, path: str) -> str:
    """What is said of something deleted."""
    response = service.client.get(path)
    assert (response.status_code, response.json()["code"]) == (410, "gone")
    detail: str = response.json()["detail"]
    return detail


def listed(service: Service, kind: str) -> list[str]:
    query = {"owned": "true"} if kind == "models" else {}
    return [row["id"] for row in service.client.get(f"/v1/{kind}", params=query).json()["data"]]


def free(service: Service) -> int:
    return freeing.free(service.core.database, service.core.storage)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_deleted_is_gone_and_comes_back_as_it_was(service: Service, kind: str) -> None:
    made = MAKE[kind](service)
    path, files = f"/v1/{kind}/{made['id']}", service.files()
    for _ in range(2):
        delete(service, path)
    assert "It can be restored until 20" in gone(service, path)
    assert made["id"] not in listed(service, kind)
    assert free(service) == 0  # its time isn't over
    assert service.files() == files
    for _ in range(2):
        response = service.client.post(f"{path}/restore")
        assert (response.status_code, response.json()) == (202, made)
    assert service.client.get(path).json() == made
    assert made["id"] in listed(service, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_once_its_time_is_over_it_is_freed_for_good(service: Service, kind: str) -> None:
    service.core.settings.deleted_grace_seconds = 0.0
    made = MAKE[kind](service)
    path = f"/v1/{kind}/{made['id']}"
    delete(service, path)
    assert service.client.post(f"{path}/restore").status_code == 410  # over, though not yet freed
    assert free(service) == 1
    assert free(service) == 0
    assert gone(service, path).endswith("can't be brought back.")
    assert service.client.post(f"{path}/restore").status_code == 410
    delete(service, path)
    delete(service, path, permanently="true")
    assert listed(service, kind) == []
    assert [name for name in service.files() if made["id"] in name] == []


def test_the_grace_can_be_given_up_also_later(service: Service) -> None:
    first, second = service.dataset()["id"], service.dataset()["id"]
    delete(service, f"/v1/datasets/{first}", permanently="true")
    delete(service, f"/v1/datasets/{second}")
    assert free(service) == 1
    delete(service, f"/v1/datasets/{second}", permanently="true")
    assert free(service) == 1
    assert service.files() == []


def test_stored_bytes_are_counted_until_they_are_freed(service: Service) -> None:
    def used() -> int:
        return int(service.client.get("/v1/quotas").json()["stored_bytes"]["used"])

    student = service.student()
    both = used()
    size = sum(file["bytes"] for file in student["files"])
    for path in (f"/v1/students/{student['id']}", f"/v1/datasets/{student['dataset_id']}"):
        delete(service, path)
    assert used() == both > size > 0
    delete(service, f"/v1/students/{student['id']}", permanently="true")
    assert used() == both
    free(service)
    assert used() == both - size
    delete(service, f"/v1/datasets/{student['dataset_id']}", permanently="true")
    free(service)
    assert used() == 0


@pytest.mark.parametrize("state", ["queued", "running", "pausing", "paused", "packaging"])
def test_a_dataset_that_jobs_need_stays_and_the_jobs_are_named(
    service: Service, state: str
) -> None:
    job = service.job()
    if state != "queued":
        claim = service.claim("distil")
        assert claim is not None
        if state == "packaging":
            service.do(lambda s, c: ledger.trained(s, c, {"trained": []}, ring=False), claim)
        elif state != "running":
            service.client.post(f"/v1/jobs/{job['id']}/pause")
            if state == "paused":
                service.do(ledger.paused, claim)
    assert service.seen(job["id"])["status"] == state
    problem = delete(service, f"/v1/datasets/{job['dataset_id']}", 409)
    assert problem["code"] == "dataset_in_use"
    assert [item["detail"] for item in problem["errors"]] == [f"{job['id']} hasn't ended."]
    assert service.client.get(f"/v1/datasets/{job['dataset_id']}").status_code == 200
    problem = delete(service, f"/v1/jobs/{job['id']}", 409)
    assert problem["code"] == "conflict"


def test_a_dataset_that_is_being_checked_stays(service: Service) -> None:
    made = service.upload()
    problem = delete(service, f"/v1/datasets/{made['id']}", 409)
    assert (problem["code"], problem["detail"]) == (
        "dataset_in_use",
        "The dataset is being checked.",
    )


def test_a_job_whose_student_is_being_rescued_stays_and_so_does_the_dataset(
    service: Service,
) -> None:
    claim = service.running()
    service.do(ledger.save_checkpoint, claim, steps.student())
    service.client.post(f"/v1/jobs/{claim.job_id}/cancel")
    service.do(ledger.cancelled, claim)
    assert service.seen(claim.job_id)["status"] == "cancelled"
    assert delete(service, f"/v1/jobs/{claim.job_id}", 409)["detail"].startswith("Its student")
    problem = delete(service, f"/v1/datasets/{claim.dataset_id}", 409)
    assert problem["errors"][0]["detail"] == f"{claim.job_id} hasn't ended."
    service.package(partial=PARTIAL)
    delete(service, f"/v1/jobs/{claim.job_id}")
    delete(service, f"/v1/datasets/{claim.dataset_id}")


def test_a_job_isnt_ordered_or_retried_on_a_deleted_dataset(service: Service) -> None:
    job = ended(service)
    delete(service, f"/v1/datasets/{job['dataset_id']}")
    for path, order in (
        ("/v1/jobs", {**MODELS, "dataset_id": job["dataset_id"]}),
        (f"/v1/jobs/{job['id']}/retry", {}),
    ):
        response = service.client.post(path, json=order)
        assert response.status_code == 422
        assert response.json()["errors"][0]["code"] == "unknown_dataset"


def test_nothing_can_be_done_to_a_deleted_job_or_below_a_deleted_thing(service: Service) -> None:
    student = service.student()
    dataset, job = student["dataset_id"], student["job_id"]
    for path in (f"datasets/{dataset}", f"students/{student['id']}", f"jobs/{job}"):
        delete(service, f"/v1/{path}")
    for path in (
        *(f"datasets/{dataset}/report", f"datasets/{dataset}/images"),
        *(f"datasets/{dataset}/images/0", f"students/{student['id']}/files"),
        *(f"students/{student['id']}/files/config.json", f"students/{student['id']}/archive"),
        *(f"jobs/{job}", f"jobs/{job}/events"),
    ):
        gone(service, f"/v1/{path}")
    for act in ("cancel", "pause", "resume"):
        assert service.client.post(f"/v1/jobs/{job}/{act}").status_code == 410
    assert service.client.post(f"/v1/jobs/{job}/retry", json={}).status_code == 410
    headers = {"Content-Type": "image/png"}
    predict = f"/v1/students/{student['id']}/predict"
    assert service.client.post(predict, content=b"x", headers=headers).status_code == 410


def test_a_repeat_of_what_made_a_deleted_thing_is_told_so(service: Service) -> None:
    order = service.order()
    headers = {"Idempotency-Key": "k"}
    job = service.client.post("/v1/jobs", json=order, headers=headers).json()
    service.client.post(f"/v1/jobs/{job['id']}/cancel")
    for permanently in ("false", "true"):
        delete(service, f"/v1/jobs/{job['id']}", permanently=permanently)
        free(service)
        again = service.client.post("/v1/jobs", json=order, headers=headers)
        assert again.status_code == 410


def test_a_student_stays_when_its_dataset_and_job_are_freed(service: Service) -> None:
    before = service.student()
    for path in (f"jobs/{before['job_id']}", f"datasets/{before['dataset_id']}"):
        delete(service, f"/v1/{path}", permanently="true")
    assert free(service) == 2
    after = service.client.get(f"/v1/students/{before['id']}")
    assert (after.status_code, after.json()) == (200, before)
    archive = service.client.get(before["archive_url"])
    assert archive.status_code == 200
    with service.core.database.read() as session:
        dataset = session.get_one(Dataset, before["dataset_id"])
        job = session.get_one(Job, before["job_id"])
    assert (dataset.name, dataset.findings, dataset.classes, dataset.file_key) == (
        "",
        [],
        None,
        None,
    )
    assert (job.spec, job.user_metadata, job.checkpoint) == ({}, {}, None)
    for job_id in (before["job_id"], *_packages(service)):
        assert scenes.events(service.core.database, job_id) == []


def _packages(service: Service) -> list[str]:
    with service.core.database.read() as session:
        found = list(session.scalars(select(Job.id).where(Job.kind.in_(("package", "ingest")))))
    assert len(found) == 2
    return found


def test_a_freed_student_has_neither_files_nor_figures(service: Service) -> None:
    made = service.student()
    delete(service, f"/v1/students/{made['id']}", permanently="true")
    free(service)
    with service.core.database.read() as session:
        row = session.get_one(Student, made["id"])
    assert (row.files, row.metrics) == ([], {})
    assert service.seen(made["job_id"])["student_id"] == made["id"]
    assert [name for name in service.files() if name.startswith("students/")] == []


def test_work_on_a_deleted_job_stays_counted(service: Service) -> None:
    claim = service.running()
    service.do(ledger.fail, claim, steps.FINAL)
    with service.core.database.write() as session:
        session.get_one(Job, claim.job_id).spent_seconds = 7200.0
    delete(service, f"/v1/jobs/{claim.job_id}", permanently="true")
    free(service)
    assert round(service.client.get("/v1/quotas").json()["device_hours"]["used"]) == 2


def test_a_finished_resumable_upload_goes_with_its_dataset(service: Service) -> None:
    from tests.app.api.tus import GOOD, begin, send

    url = begin(service)
    assert send(service, url, 0, GOOD).status_code == 204
    service.settle()
    dataset = service.client.get(url).json()["dataset_id"]
    delete(service, f"/v1/datasets/{dataset}", permanently="true")
    free(service)
    assert service.client.get(url).status_code == 404


def test_only_a_users_own_jobs_can_be_deleted(service: Service) -> None:
    service.upload()
    with service.core.database.read() as session:
        check = session.scalars(select(Job.id)).one()
    delete(service, f"/v1/jobs/{check}", 404)
