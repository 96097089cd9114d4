"""POST /v1/sweeps?dry_run=true: as a job's, for many students, with one pass of the foundation."""

from __future__ import annotations

from typing import Any

import pytest

from tests.app.api.test_dry_run import changed, codes, worker
from tests.app.plans.test_estimates import OPTIONS, OTHER_VIEWS, SPLITS, TOOK, finish
from tests.app.service import Service

URL = "/v1/sweeps?dry_run=true"
STUDENTS = ["test_resnet", "resnet18", "mobilenetv3_small_100"]
SEEN = {**OPTIONS, "image_size": 160}  # which is what was measured
UNSEEN = {**OTHER_VIEWS, "image_size": 160}


def order(service: Service, **more: Any) -> dict[str, Any]:
    if "dataset_id" not in more:
        more["dataset_id"] = service.dataset()["id"]
    return {"foundation": "letters_vit", "students": STUDENTS, **more}


def dry_run(service: Service, **more: Any) -> dict[str, Any]:
    response = service.client.post(URL, json=order(service, **more))
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_it_stores_nothing(service: Service) -> None:
    body, headers = order(service), {"Idempotency-Key": "k"}
    log = service.client.get("/v1/audit-log").json()
    before, files = service.rows(), service.files()
    found = service.client.post(URL, json=body, headers=headers)
    assert (found.status_code, found.json()["ok"]) == (200, True)
    assert (service.rows(), service.files()) == (before, files)
    assert service.client.get("/v1/audit-log").json() == log
    assert "Location" not in found.headers
    # The key is as good as new, even for another order.
    other = {**body, "students": STUDENTS[:1]}
    assert service.client.post("/v1/sweeps", json=other, headers=headers).status_code == 201


def test_it_needs_what_an_order_needs(service: Service, stranger: dict[str, str]) -> None:
    response = service.client.post(URL, json={"students": [], "colour": 1})
    assert response.status_code == 422
    theirs = service.client.post(URL, json=order(service), headers=stranger).json()
    assert codes(theirs, "error") == [("/dataset_id", "unknown_dataset")]
    assert theirs["estimate"] is None


def test_everything_is_found_at_once_and_refuses_a_real_order(service: Service) -> None:
    service.core.settings.quota_waiting_jobs = 2
    wrong = {
        "dataset_id": service.upload()["id"],
        "foundation": "vit_smal_patch16_224",
        "students": ["resnet81", "test_resnet", "../x"],
        "queue": "none",
        "options": {"input": {"border": 256}, "foundation_size": 512},
    }
    found = dry_run(service, **wrong)
    assert (found["ok"], found["estimate"]) == (False, None)
    expected = [
        ("", "waiting_jobs"),
        ("/foundation", "unknown_model"),
        ("/queue", "unknown_queue"),
        ("/dataset_id", "dataset_not_ready"),
        ("/options/input/border", "options"),
        ("/students/0", "unknown_model"),
        ("/students/2", "unknown_model"),
    ]
    assert codes(found, "error") == expected
    assert (found["findings"][0]["limit"], found["findings"][0]["used"]) == (2, 0)
    real = service.client.post("/v1/sweeps", json=order(service, **wrong))
    assert (real.status_code, real.json()["code"]) == (429, "quota_exceeded")
    assert [(each["pointer"], each["code"]) for each in real.json()["errors"]] == expected


def test_an_option_that_one_student_cant_have_points_at_it(service: Service) -> None:
    """With `match` the foundation sees 224 pixels for the one and 112 for the other."""
    students = ["vit_tiny_patch16_224", "vit_small_patch32_224"]
    options = {"foundation_size": "match", "image_size": 224, "input": {"border": 60}}
    more = {"foundation": "vit_small_patch16_224", "students": students, "options": options}
    assert codes(dry_run(service, **more), "error") == [("/students/1", "options")]
    real = service.client.post("/v1/sweeps", json=order(service, **more))
    assert (real.status_code, real.json()["errors"][0]["pointer"]) == (422, "/students/1")


def test_what_is_said_of_all_points_at_the_order_and_the_rest_at_students(
    service: Service,
) -> None:
    students = ["test_resnet", "resnet50", "vit_tiny_patch16_224"]
    found = dry_run(service, students=students, options={"image_size": 100})
    assert found["ok"]
    assert codes(found, "warning") == [
        ("/queue", "no_worker"),
        ("/students/1", "foundation_smaller"),
        ("/students/2", "size_off_grid"),
        ("/students/2", "foundation_smaller"),
    ]
    worker(service)
    assert dry_run(service)["findings"][0]["pointer"] == "/students/1"
    assert dry_run(service, students=["test_resnet"])["findings"] == []


def test_the_foundation_is_counted_once(service: Service) -> None:
    """Each student is trained for itself; of the cache's 20 seconds there are 20, not 60."""
    dataset_id = changed(service, splits=SPLITS)
    for student in STUDENTS:
        finish(service, dataset_id, student=student)
    more = {"dataset_id": dataset_id, "options": UNSEEN, "baselines": ["scratch"]}
    found = dry_run(service, **more)["estimate"]
    seconds = {each["stage"]: (each["units"], each["seconds"]) for each in found["stages"]}
    assert seconds == {
        "prepare": (330, 33.0),
        "cache": (200, 20.0),
        "reprogram": (600, 12.0),
        "distil": (300, 150.0),
        "scratch": (300, 120.0),
        "rest": (3, 30.0),
    }
    assert found["seconds"] == 3 * 135.0 - 2 * TOOK["cache"]
    assert (found["cache"], found["foundation_forwards"]) == ("cold", 200)
    assert (found["basis"], found["measurements"]) == ("same", 1)
    assert found["other_forwards"] == 3 * 110
    # One entry; the largest job's memory, and not that of all.
    alone = [dry_run(service, **more, students=[each])["estimate"] for each in STUDENTS]
    assert found["cache_bytes"] == alone[0]["cache_bytes"]
    assert found["memory_bytes"] == max(each["memory_bytes"] for each in alone)
    again = dry_run(service, **more | {"options": SEEN})["estimate"]  # as the jobs before
    assert (again["cache"], again["foundation_forwards"]) == ("warm", 0)
    assert again["seconds"] == 3 * (135.0 - TOOK["cache"])


def test_students_that_see_through_other_patches_share_nothing(service: Service) -> None:
    students = ["vit_tiny_patch16_224", "vit_small_patch32_224"]
    more = {"foundation": "vit_small_patch16_224", "students": students}
    matched = {**OPTIONS, "foundation_size": "match"}
    dataset_id = changed(service, splits=SPLITS)
    found = dry_run(service, dataset_id=dataset_id, **more, options=matched)["estimate"]
    assert (found["cache"], found["foundation_forwards"]) == ("cold", 400)
    made = service.client.post("/v1/sweeps", json=order(service, **more, options=matched)).json()
    kept = [service.seen(job["job_id"])["estimate"]["cache"] for job in made["jobs"]]
    assert kept == ["cold", "cold"]


def test_what_isnt_known_of_one_student_isnt_known_of_all(service: Service) -> None:
    found = dry_run(service, options={"training": {"steps": 7}})["estimate"]
    assert (found["seconds"], found["low"], found["high"]) == (None, None, None)
    assert (found["measurements"], found["basis"]) == (0, "none")
    units = {each["stage"]: each["units"] for each in found["stages"]}
    assert (units["distil"], units["kd"]) == (21, 21)


@pytest.mark.parametrize(("seconds", "short"), [(95.0, True), (97.0, False)])
def test_a_budget_is_of_each_job(service: Service, seconds: float, short: bool) -> None:
    """At least 96 seconds for the first, which fills the cache, and 80 for each of the others."""
    dataset_id = changed(service, splits=SPLITS)
    for student in STUDENTS:
        finish(service, dataset_id, student=student)
    more = {"dataset_id": dataset_id, "options": UNSEEN, "baselines": ["scratch"]}
    found = dry_run(service, **more, budget={"max_seconds": seconds})
    said = [pointer for pointer, code in codes(found, "warning") if code == "budget_short"]
    assert said == ["/students/0"] * short
