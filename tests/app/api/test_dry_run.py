"""POST /v1/jobs?dry_run=true: everything is said at once, by the checks that refuse real orders."""

from __future__ import annotations

from typing import Any

import pytest

from app.jobs import fleet
from app.models import Dataset
from tests.app.datasets.zips import good_files, pack
from tests.app.service import Service

URL = "/v1/jobs?dry_run=true"
SPLITS = {"train": {"a": 60, "b": 40}, "test": {"a": 6, "b": 4}}


def dry_run(service: Service, **more: Any) -> dict[str, Any]:
    response = service.client.post(URL, json=service.order(**more))
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def codes(found: dict[str, Any], severity: str) -> list[tuple[str, str]]:
    rows = [each for each in found["findings"] if each["severity"] == severity]
    assert all(each["detail"] and each["advice"] for each in rows)
    return [(each["pointer"], each["code"]) for each in rows]


def changed(service: Service, **columns: Any) -> str:
    """A ready dataset whose row says something else."""
    dataset_id: str = service.dataset()["id"]
    with service.core.database.write() as session:
        row = session.get_one(Dataset, dataset_id)
        for name, value in columns.items():
            setattr(row, name, value)
    return dataset_id


def worker(service: Service, **given: Any) -> None:
    options: dict[str, Any] = {"host": "h", "pid": 1, "device": "cpu"}
    options |= {"queues": ["default"], "kinds": ["distil"], **given}
    with service.core.database.write() as session:
        fleet.report(session, "w1", **options)


def test_it_stores_nothing(service: Service) -> None:
    order = service.order()
    log = service.client.get("/v1/audit-log").json()
    before, files = service.rows(), service.files()
    headers = {"Idempotency-Key": "k"}
    found = service.client.post(URL, json=order, headers=headers)
    assert (found.status_code, found.json()["ok"]) == (200, True)
    assert (service.rows(), service.files()) == (before, files)
    assert service.client.get("/v1/audit-log").json() == log
    assert "Location" not in found.headers
    # The key is as good as new, even for another order.
    other = {**order, "baselines": []}
    assert service.client.post("/v1/jobs", json=other, headers=headers).status_code == 201


def test_it_needs_what_an_order_needs(service: Service, stranger: dict[str, str]) -> None:
    response = service.client.post(URL, json={"student": 5, "colour": 1})
    assert response.status_code == 422
    assert len(response.json()["errors"]) >= 3
    order = service.order()
    theirs = service.client.post(URL, json=order, headers=stranger).json()
    assert codes(theirs, "error") == [("/dataset_id", "unknown_dataset")]
    assert theirs["estimate"] is None


def test_everything_is_found_at_once_and_refuses_a_real_order(service: Service) -> None:
    service.core.settings.quota_waiting_jobs = 1
    service.job()
    wrong = {
        "dataset_id": service.upload()["id"],
        "foundation": "vit_smal_patch16_224",
        "student": "resnet81",
        "queue": "none",
    }
    found = dry_run(service, **wrong)
    assert (found["ok"], found["estimate"]) == (False, None)
    expected = [
        ("", "waiting_jobs"),
        ("/foundation", "unknown_model"),
        ("/student", "unknown_model"),
        ("/queue", "unknown_queue"),
        ("/dataset_id", "dataset_not_ready"),
    ]
    assert codes(found, "error") == expected
    assert found["findings"][0]["limit"] == found["findings"][0]["used"] == 1
    assert found["findings"][3]["allowed"] == ["default"]

    real = service.client.post("/v1/jobs", json=service.order(**wrong))
    assert (real.status_code, real.json()["code"]) == (429, "quota_exceeded")
    assert real.headers["Retry-After"] == "60"
    assert [(each["pointer"], each["code"]) for each in real.json()["errors"]] == expected

    service.core.settings.quota_waiting_jobs = None
    real = service.client.post("/v1/jobs", json=service.order(**wrong))
    assert (real.status_code, real.json()["code"]) == (422, "unknown_model")
    assert [each["code"] for each in real.json()["errors"]] == [code for _, code in expected[1:]]


def test_a_dataset_that_failed_its_check(service: Service) -> None:
    bad = service.dataset(pack(good_files(3, "a")))
    found = dry_run(service, dataset_id=bad["id"])
    assert codes(found, "error") == [("/dataset_id", "dataset_not_ready")]


CLASSES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "one-class": ({"classes": ["a"]}, "error", ["one_class"]),
    "not-trained": (
        {"splits": {"train": {"a": 3}, "test": {"a": 1, "b": 1}}},
        "error",
        ["class_not_trained"],
    ),
    "not-held-out": (
        {"splits": {"train": {"a": 3, "b": 3}, "test": {}}},
        "error",
        ["nothing_held_out"],
    ),
    "not-tested": (
        {"splits": {"train": {"a": 3, "b": 3}, "test": {"a": 1}}},
        "warning",
        ["class_not_tested"],
    ),
    "val-tests": ({"splits": {"train": {"a": 3, "b": 3}, "val": {"a": 1, "b": 1}}}, "error", []),
    "few": (
        {"splits": {"train": {"a": 9, "b": 1}, "test": {"a": 1, "b": 1}}},
        "warning",
        ["few_images"],
    ),
}


@pytest.mark.parametrize(("row", "severity", "expected"), CLASSES.values(), ids=CLASSES.keys())
def test_what_the_dataset_lacks_is_foreseen(
    service: Service, row: dict[str, Any], severity: str, expected: list[str]
) -> None:
    dataset_id = changed(service, **row)
    found = dry_run(service, dataset_id=dataset_id)
    said = [code for pointer, code in codes(found, severity) if pointer == "/dataset_id"]
    assert said == expected
    refused = service.client.post("/v1/jobs", json=service.order(dataset_id=dataset_id))
    wrong = severity == "error" and bool(expected)
    assert refused.status_code == (422 if wrong else 201)
    assert [each["code"] for each in refused.json().get("errors", [])] == expected * wrong


ORDERS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "border": ({"options": {"input": {"border": 16}}}, "error", "/options/input/border", "options"),
    "smaller": ({"student": "resnet50"}, "warning", "/foundation", "foundation_smaller"),
    "grid": (
        {"student": "vit_tiny_patch16_224", "options": {"image_size": 100}},
        "warning",
        "/options/image_size",
        "size_off_grid",
    ),
    "small": ({"options": {"image_size": 16}}, "warning", "/options/image_size", "size_small"),
    "match": (
        {"options": {"foundation_size": "match"}},
        "warning",
        "/options/foundation_size",
        "nothing_to_match",
    ),
    "weights": (
        {"options": {"distil": {"ce": 0, "kd": 0}}},
        "warning",
        "/options/distil",
        "nothing_to_learn",
    ),
    "weights of a reused head": (
        {"options": {"distil": {"ce": 0, "kd": 0, "head": "reused", "read": 0}}},
        "warning",
        "/options/distil",
        "nothing_to_learn",
    ),
    "trained": (
        {"options": {"reprogram": {"mode": "trained"}}},
        "warning",
        "/options/reprogram/mode",
        "few_to_train_on",
    ),
    "licence": (
        {"foundation": "vit_small_patch16_dinov3.lvd1689m"},
        "warning",
        "/foundation",
        "licence_restricted",
    ),
    "network": ({"foundation": "vit_small_patch16_224"}, "warning", "/foundation", "needs_network"),
    "pretrained": (
        {"options": {"student_pretrained": True}},
        "warning",
        "/student",
        "needs_network",
    ),
    "no-licence": ({"foundation": "dla60_res2net"}, "warning", "/foundation", "licence_unknown"),
    "no-worker": ({}, "warning", "/queue", "no_worker"),
}


@pytest.mark.parametrize(
    ("more", "severity", "pointer", "code"), ORDERS.values(), ids=ORDERS.keys()
)
def test_what_an_order_would_meet(
    service: Service, more: dict[str, Any], severity: str, pointer: str, code: str
) -> None:
    found = dry_run(service, **more)
    assert (pointer, code) in codes(found, severity)
    assert found["ok"] is (severity == "warning")
    worker(service)
    plain = dry_run(service)
    assert (plain["ok"], plain["findings"]) == (True, [])


def test_a_worker_with_fewer_devices_wont_take_it(service: Service) -> None:
    worker(service, devices=2)
    found = dry_run(service, options={"devices": 4})
    assert codes(found, "warning") == [("/options/devices", "no_worker")]
    assert dry_run(service, options={"devices": 2})["findings"] == []


def test_a_reused_head_learns_without_labels(service: Service) -> None:
    worker(service)
    distil = {"ce": 0, "kd": 0, "head": "reused"}
    assert dry_run(service, options={"distil": distil})["findings"] == []


def test_a_border_just_fits(service: Service) -> None:
    worker(service)
    found = dry_run(service, options={"input": {"border": 15}})
    assert found["findings"] == []


def test_one_image_of_each_class_leaves_nothing_to_try(service: Service) -> None:
    splits = {"train": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}}
    dataset_id = changed(service, splits=splits)
    found = dry_run(service, dataset_id=dataset_id, options={"input": {"affine": True}})
    assert ("/options/input", "input_not_tried") in codes(found, "warning")


def test_memory_and_disk_are_reckoned(service: Service) -> None:
    worker(service, memory_bytes=2**40)
    splits = {"train": {"a": 10**12, "b": 10**12}, "test": {"a": 1, "b": 1}}
    dataset_id = changed(service, splits=splits)
    assert codes(dry_run(service, dataset_id=dataset_id), "warning") == [
        ("/options/views/count", "disk")
    ]
    worker(service, memory_bytes=2**20)
    found = dry_run(service)
    assert codes(found, "warning") == [("/options/training/batch_size", "memory")]
    assert found["estimate"]["memory_bytes"] > 2**20
    worker(service, memory_bytes=None)  # nothing is known of it, and nothing said
    assert dry_run(service)["findings"] == []


def test_an_estimate_says_what_it_knows_and_invents_nothing(service: Service) -> None:
    dataset_id = changed(service, splits=SPLITS)
    estimate = dry_run(service, dataset_id=dataset_id)["estimate"]
    assert (estimate["seconds"], estimate["low"], estimate["high"]) == (None, None, None)
    assert (estimate["measurements"], estimate["basis"]) == (0, "none")
    assert {each["seconds"] for each in estimate["stages"]} == {None}
    units = {each["stage"]: each["units"] for each in estimate["stages"]}
    # 10,000 views of 100 training images, and 10 held out.
    assert units == {
        "prepare": 110,
        "cache": 10_000,
        "reprogram": 10_000,
        "distil": 2000,
        "scratch": 2000,
        "kd": 2000,
        "rest": 1,
    }
    assert (estimate["cache"], estimate["foundation_forwards"]) == ("cold", 10_000)
    assert estimate["other_forwards"] == 10 + 110  # the probe's, and the audit's
    more = dry_run(
        service,
        dataset_id=dataset_id,
        baselines=["kd_online"],
        options={"audit": False, "training": {"steps": 3, "batch_size": 5}, "views": {"count": 2}},
    )["estimate"]
    assert (more["foundation_forwards"], more["other_forwards"]) == (200, 15)
