"""/v1/students: figures, files, parts of files, and all of them in one archive."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from typing import Any

import pytest

from tests.app.service import BUNDLE, METRICS, Service

WEIGHTS = BUNDLE["model.safetensors"]


@pytest.fixture
def student(service: Service) -> dict[str, Any]:
    return service.student()


@pytest.fixture
def weights(student: dict[str, Any]) -> str:
    return f"/v1/students/{student['id']}/files/model.safetensors"


def test_a_student_tells_how_good_it_is_and_against_what(student: dict[str, Any]) -> None:
    assert (student["accuracy"], student["interval"]) == (0.9, [0.8, 0.95])
    assert student["params"] == 1000
    assert student["baselines"] == METRICS["baselines"]
    assert student["metrics"] == METRICS
    assert (student["foundation"], student["architecture"]) == ("letters_vit", "test_resnet")
    assert {file["name"] for file in student["files"]} == {*BUNDLE, "manifest.json"}
    assert len(student["dataset_version"]) == 64


def test_it_stands_in_the_list(service: Service, student: dict[str, Any]) -> None:
    (row,) = service.client.get("/v1/students").json()["data"]
    assert row == {name: student[name] for name in row}
    assert "metrics" not in row


def test_the_files_are_listed_with_their_addresses(
    service: Service, student: dict[str, Any]
) -> None:
    files = service.client.get(f"/v1/students/{student['id']}/files").json()["data"]
    assert files == student["files"]
    for file in files:
        content = service.client.get(file["url"]).content
        assert len(content) == file["bytes"]
        assert hashlib.sha256(content).hexdigest() == file["sha256"]


def test_a_file_comes_with_all_that_is_known_of_it(service: Service, weights: str) -> None:
    response = service.client.get(weights)
    digest = hashlib.sha256(WEIGHTS)
    assert (response.status_code, response.content) == (200, WEIGHTS)
    assert response.headers["ETag"] == f'"{digest.hexdigest()}"'
    encoded = base64.b64encode(digest.digest()).decode()
    assert response.headers["Repr-Digest"] == f"sha-256=:{encoded}:"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Content-Length"] == str(len(WEIGHTS))
    assert response.headers["Content-Disposition"] == 'attachment; filename="model.safetensors"'
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_head_knows_no_parts(service: Service, weights: str) -> None:
    """RFC 9110, 14.2: only GET has ranges."""
    head = service.client.head(weights, headers={"Range": "bytes=0-9"})
    assert (head.status_code, "Content-Range" in head.headers) == (200, False)
    assert head.headers["Content-Length"] == str(len(WEIGHTS))


@pytest.mark.parametrize("damage", [b"", WEIGHTS[:-1], None])
def test_a_file_that_is_gone_or_cut_is_said_before_any_of_it_is_sent(
    service: Service, student: dict[str, Any], weights: str, damage: bytes | None
) -> None:
    (stored,) = service.core.storage.root.rglob("model.safetensors")
    stored.unlink() if damage is None else stored.write_bytes(damage)
    for url in (weights, student["archive_url"]):
        response = service.client.get(url)
        assert (response.status_code, response.json()["code"]) == (500, "damaged_file")
        assert str(service.core.storage.root) not in response.text
        assert "model.safetensors" in response.json()["detail"]
    assert service.client.get(weights.replace("model.safetensors", "README.md")).is_success


def test_head_tells_the_same_without_the_bytes(service: Service, weights: str) -> None:
    whole, head = service.client.get(weights), service.client.head(weights)
    assert (head.status_code, head.content) == (200, b"")
    changing = {"x-request-id", "date"}
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in whole.headers.items() if k not in changing
    }


PARTS = {
    "first": ("bytes=0-9", WEIGHTS[:10]),
    "middle": ("bytes=100-299", WEIGHTS[100:300]),
    "rest": ("bytes=5000-", WEIGHTS[5000:]),
    "last": ("bytes=-20", WEIGHTS[-20:]),
    "more-than-there-is": ("bytes=5000-999999", WEIGHTS[5000:]),
    "more-than-all-of-it": ("bytes=-999999", WEIGHTS),
    "units-in-capitals": ("Bytes=0-9", WEIGHTS[:10]),
    "one-byte": ("bytes=0-0", WEIGHTS[:1]),
}


@pytest.mark.parametrize(("header", "expected"), PARTS.values(), ids=PARTS.keys())
def test_a_part_of_a_file(service: Service, weights: str, header: str, expected: bytes) -> None:
    response = service.client.get(weights, headers={"Range": header})
    assert (response.status_code, response.content) == (206, expected)
    start = WEIGHTS.index(expected) if len(expected) != 1 else 0
    stop = start + len(expected) - 1
    if header not in ("bytes=-20", "bytes=5000-", "bytes=5000-999999"):
        assert response.headers["Content-Range"] == f"bytes {start}-{stop}/{len(WEIGHTS)}"
    assert response.headers["Content-Length"] == str(len(expected))
    assert response.headers["Content-Range"].endswith(f"/{len(WEIGHTS)}")


@pytest.mark.parametrize(
    "header", ["bytes=9-5", "bytes=0-1,5-6", "lines=0-5", "bytes=-", "bytes=a-b", "nonsense"]
)
def test_what_isnt_one_range_gets_the_whole(service: Service, weights: str, header: str) -> None:
    response = service.client.get(weights, headers={"Range": header})
    assert (response.status_code, response.content) == (200, WEIGHTS)


@pytest.mark.parametrize("header", ["bytes=99999-", "bytes=5120-5121", "bytes=-0"])
def test_a_range_that_isnt_there_is_416(service: Service, weights: str, header: str) -> None:
    response = service.client.get(weights, headers={"Range": header})
    assert (response.status_code, response.json()["code"]) == (416, "range_not_satisfiable")
    assert response.headers["Content-Range"] == f"bytes */{len(WEIGHTS)}"


def test_if_range_gives_the_part_only_of_the_same_file(service: Service, weights: str) -> None:
    etag = service.client.get(weights).headers["ETag"]
    for condition, status in ((etag, 206), ('"other"', 200), (f"W/{etag}", 200)):
        headers = {"Range": "bytes=0-9", "If-Range": condition}
        assert service.client.get(weights, headers=headers).status_code == status


def test_what_the_client_has_isnt_sent_again(service: Service, weights: str) -> None:
    etag = service.client.get(weights).headers["ETag"]
    for condition in (etag, f'"x", {etag}', "*", f"W/{etag}"):
        response = service.client.get(weights, headers={"If-None-Match": condition})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["ETag"] == etag
    assert service.client.get(weights, headers={"If-None-Match": '"x"'}).status_code == 200


def test_the_archive_is_the_files_and_always_the_same(
    service: Service, student: dict[str, Any]
) -> None:
    first = service.client.get(student["archive_url"])
    again = service.client.get(student["archive_url"])
    assert first.content == again.content
    assert len(first.content) == int(first.headers["Content-Length"])
    assert first.headers["Content-Type"] == "application/zip"
    assert f'filename="{student["id"]}.zip"' in first.headers["Content-Disposition"]
    with zipfile.ZipFile(io.BytesIO(first.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in BUNDLE} == BUNDLE
    part = service.client.get(student["archive_url"], headers={"Range": "bytes=50-149"})
    assert part.content == first.content[50:150]
    etag = {"If-None-Match": first.headers["ETag"]}
    assert service.client.get(student["archive_url"], headers=etag).status_code == 304


@pytest.mark.parametrize("name", ["nothing", "%2e%2e", "..%2fmanifest.json", "a%00"])
def test_only_its_own_files(service: Service, student: dict[str, Any], name: str) -> None:
    path = f"/v1/students/{student['id']}/files/{name}"
    assert service.client.get(path).status_code == 404
