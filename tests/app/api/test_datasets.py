"""/v1/datasets: every upload that can't be taken leaves no row and no file."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest
from fastapi.testclient import TestClient

from app.jobs import ledger
from app.storage import LocalStorage, Writer
from tests.app.datasets.zips import Raw, good_files, pack, png, with_good
from tests.app.service import NOTHING, ZIP, Service

GOOD = pack(good_files())


def test_an_upload_is_stored_and_its_check_queued(service: Service) -> None:
    response = service.client.post("/v1/datasets?name=digits", content=GOOD, headers=ZIP)
    made = response.json()
    assert response.status_code == 201
    assert response.headers["Location"] == f"/v1/datasets/{made['id']}"
    assert (made["name"], made["status"]) == ("digits", "processing")
    assert made["upload_bytes"] == len(GOOD)
    assert made["upload_sha256"] == hashlib.sha256(GOOD).hexdigest()
    assert made["created_at"].endswith("Z")
    assert (made["version"], made["classes"], made["settled_at"]) == (None, None, None)
    assert made["check"] == {"status": "queued", "stage": None, "eta_seconds": None, "attempt": 0}
    assert service.files() == [f"uploads/{made['id']}"]
    assert service.core.storage.path(f"uploads/{made['id']}").read_bytes() == GOOD


def test_a_good_one_becomes_ready_and_its_upload_goes(service: Service) -> None:
    found = service.dataset()
    assert found["status"] == "ready"
    assert len(found["version"]) == 64
    assert found["classes"] == [{"name": "a", "images": 3}, {"name": "b", "images": 3}]
    assert found["splits"] == {"test": {"a": 1, "b": 1}, "train": {"a": 2, "b": 2}}
    assert found["check"]["status"] == "succeeded"
    assert found["settled_at"] >= found["created_at"]
    names = ("dataset.zip", "gallery.bin")
    assert service.files() == [f"datasets/{found['id']}/{name}" for name in names]


def test_a_bad_one_becomes_invalid_with_every_finding(service: Service) -> None:
    content = with_good(Raw(b"../x.png", png(9)), Raw(b"a/broken.png", png(9)[:30]))
    found = service.dataset(content)
    assert (found["status"], found["version"], found["classes"]) == ("invalid", None, None)
    assert [each["code"] for each in found["findings"]] == ["unsafe_name", "unreadable_image"]
    assert all(each["advice"] for each in found["findings"])
    assert service.files() == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (pack({"1.png": png(1), "2.png": png(2)}), "image_outside_class"),
        (pack({}), "no_class_folder"),
        (pack(good_files(3, "a")), "one_class"),
        (pack({**good_files(), "a/9.png": b"garbage"}), "unsupported_image"),
        (pack({**good_files(), "a/9.png": png(9)[:40]}), "unreadable_image"),
    ],
    ids=["no-folder", "empty", "one-class", "no-image", "unreadable"],
)
def test_what_only_the_check_can_see(service: Service, content: bytes, code: str) -> None:
    found = service.dataset(content)
    assert found["status"] == "invalid"
    assert code in [each["code"] for each in found["findings"]]


REFUSED: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "empty": (b"", ZIP, 422, "empty_body"),
    "text": (b"not an archive at all", ZIP, 422, "not_an_archive"),
    "short": (b"PK", ZIP, 422, "not_an_archive"),
    "cut": (GOOD[:-20], ZIP, 422, "not_an_archive"),
    "bzip2": (b"BZh9" + b"x" * 99, ZIP, 422, "not_an_archive"),
    "large-text": (os.urandom(3 << 20), ZIP, 422, "not_an_archive"),
    "no-type": (GOOD, {}, 415, "unsupported_media_type"),
    "json": (GOOD, {"Content-Type": "application/json"}, 415, "unsupported_media_type"),
    "form": (GOOD, {"Content-Type": "multipart/form-data"}, 415, "unsupported_media_type"),
    "large": (GOOD + b"x" * 9000, ZIP, 413, "too_large"),
    "bad-key": (GOOD, {**ZIP, "Idempotency-Key": "a b"}, 422, "invalid"),
    "long-key": (GOOD, {**ZIP, "Idempotency-Key": "x" * 201}, 422, "invalid"),
}


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"), REFUSED.values(), ids=REFUSED.keys()
)
def test_what_the_request_alone_shows_is_refused_at_once(
    service: Service, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    service.core.settings.max_upload_bytes = 4 << 20 if code == "not_an_archive" else 8000
    response = service.client.post("/v1/datasets", content=content, headers=headers)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert service.rows() == NOTHING
    assert service.files() == []


@pytest.mark.parametrize(
    "query", ["name=", "name=" + "x" * 201, "name=a%00b", "name=a%0Ab", "no=1"]
)
def test_a_name_that_cant_be_taken(service: Service, query: str) -> None:
    response = service.client.post(f"/v1/datasets?{query}", content=GOOD, headers=ZIP)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] in ("/query/name", "/query/no")
    assert service.rows() == NOTHING


def test_a_full_disk_is_507_and_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Writer, chunk: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Writer, "write", full)
    response = service.client.post("/v1/datasets", content=GOOD, headers=ZIP)
    assert (response.status_code, response.json()["code"]) == (507, "insufficient_storage")
    assert service.rows() == NOTHING
    assert service.files() == []


def test_a_row_that_cant_be_written_takes_the_file_with_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret/path/of/ours")

    monkeypatch.setattr("app.jobs.moves.submit", broken)
    response = service.client.post("/v1/datasets", content=GOOD, headers=ZIP)
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "secret" not in response.text
    assert service.rows() == NOTHING
    assert service.files() == []


def test_the_same_request_twice_makes_one_dataset(service: Service) -> None:
    headers = {**ZIP, "Idempotency-Key": "upload-1"}
    first = service.client.post("/v1/datasets?name=x", content=GOOD, headers=headers)
    again = service.client.post("/v1/datasets?name=x", content=GOOD, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert service.rows()["datasets"] == 1
    assert service.files() == [f"uploads/{first.json()['id']}"]


@pytest.mark.parametrize("change", ["body", "name"])
def test_the_key_of_another_request_is_refused(service: Service, change: str) -> None:
    service.upload(**{"Idempotency-Key": "upload-1"})
    content = pack(good_files(4)) if change == "body" else GOOD
    response = service.client.post(
        "/v1/datasets" + ("?name=other" if change == "name" else ""),
        content=content,
        headers={**ZIP, "Idempotency-Key": "upload-1"},
    )
    assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_reused")
    assert service.rows()["datasets"] == 1
    assert len(service.files()) == 1


def test_keys_of_different_owners_dont_meet(service: Service, stranger: dict[str, str]) -> None:
    service.upload(**{"Idempotency-Key": "upload-1"})
    other = service.upload(**{"Idempotency-Key": "upload-1"}, **stranger)
    assert service.rows()["datasets"] == 2
    assert service.client.get(f"/v1/datasets/{other['id']}").status_code == 404


def test_the_progress_of_the_check_shows(service: Service) -> None:
    made = service.upload()
    claim = service.claim("ingest")
    assert claim is not None
    stage = {"name": "check", "index": 2, "count": 3, "progress": 0.5}
    with service.core.database.write() as session:
        progress = {"event": "progress", "stage": stage, "eta_seconds": 4.0}
        ledger.beat(session, claim, lease_seconds=60, progress=progress)
    check = service.client.get(f"/v1/datasets/{made['id']}").json()["check"]
    assert check == {"status": "running", "stage": stage, "eta_seconds": 4.0, "attempt": 1}


def test_ids_that_cant_be_ours_read_as_missing(client: TestClient) -> None:
    for strange in ("%00", "a%20b", "..%2f..", "\u00fc", "x" * 300):
        assert client.get(f"/v1/datasets/{strange}").status_code == 404


def test_staging_is_left_empty(service: Service, storage: LocalStorage) -> None:
    service.dataset()
    assert list((storage.root / ".staging").iterdir()) == []
