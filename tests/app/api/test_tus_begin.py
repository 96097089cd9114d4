"""POST /v1/uploads: what an upload begins with."""

from __future__ import annotations

import pytest

from tests.app.api.tus import BYTES, GOOD, TUS, UPLOADS, b64, begin, offset_of, refused
from tests.app.service import NOTHING, Service


@pytest.mark.parametrize("first", [len(GOOD), 300])
def test_the_first_bytes_may_come_with_the_beginning(service: Service, first: int) -> None:
    headers = {**BYTES, "Upload-Length": str(len(GOOD))}
    response = service.client.post(UPLOADS, content=GOOD[:first], headers=headers)
    assert response.status_code == 201
    assert response.headers["Upload-Offset"] == str(first)
    assert response.json()["offset"] == first
    assert ("Tdmr-Dataset" in response.headers) is (first == len(GOOD))
    assert offset_of(service, response.headers["Location"]) == first


def test_a_beginning_whose_bytes_cant_be_taken_leaves_nothing(service: Service) -> None:
    headers = {**BYTES, "Upload-Length": "1000"}
    response = service.client.post(UPLOADS, content=b"no" * 500, headers=headers)
    refused(response, 422, "not_an_archive")
    headers["Upload-Checksum"] = f"sha1 {b64(bytes(20))}"
    response = service.client.post(UPLOADS, content=GOOD[:100], headers=headers)
    refused(response, 460, "checksum_mismatch")
    assert service.rows() == NOTHING
    assert service.files() == []


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Upload-Length": "10"}, 412, "tus_version"),
        ({"Upload-Length": "10", "Tus-Resumable": "0.2.2"}, 412, "tus_version"),
        (TUS, 400, "bad_request"),
        ({**TUS, "Upload-Length": "ten"}, 400, "bad_request"),
        ({**TUS, "Upload-Length": "-1"}, 400, "bad_request"),
        ({**TUS, "Upload-Length": "+10"}, 400, "bad_request"),
        ({**TUS, "Upload-Length": "\u0661"}, 400, "bad_request"),
        ({**TUS, "Upload-Length": "9" * 16}, 400, "bad_request"),
        ({**TUS, "Upload-Length": "9" * 15}, 413, "too_large"),
        ({**TUS, "Upload-Length": "0"}, 422, "empty_body"),
        ({**TUS, "Upload-Defer-Length": "1"}, 400, "bad_request"),
        ({**TUS, "Upload-Length": "10", "Upload-Concat": "partial"}, 400, "bad_request"),
    ],
)
def test_a_beginning_that_cant_be(
    service: Service, headers: dict[str, str], status: int, code: str
) -> None:
    raw = {name: value.encode() for name, value in headers.items()}
    response = refused(service.client.post(UPLOADS, headers=raw), status, code)
    if status == 412:
        assert response.headers["Tus-Version"] == "1.0.0"
    if status == 400:
        assert response.json()["errors"][0]["pointer"].startswith("/header/Upload-")
    assert service.rows() == NOTHING
    assert service.files() == []


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ("", "dataset"),
        ("own d29ya3M=", "dataset"),
        ("flag", "dataset"),
        (f"name {b64('Übung')}", "Übung"),
        (f"name {b64('a')}, filename {b64('b.zip')}", "a"),
        (f"filename {b64('b.tar.gz')}", "b.tar"),
        (f"filename {b64('/x/../y/b.zip')}", "b"),
        (f"filename {b64('.zip')}", ".zip"),
        (f"filename {b64('n' * 250 + '.zip')}", "n" * 200),
    ],
)
def test_what_the_dataset_is_called(service: Service, metadata: str, name: str) -> None:
    url = begin(service, **{"Upload-Metadata": metadata})
    assert service.client.get(url).json()["name"] == name


@pytest.mark.parametrize(
    "metadata",
    [
        "name ***",
        f"name {b64('a')},name {b64('b')}",
        f"name {b64('a')},,x",
        f"name {b64('a')} more",
        f"name {b64(chr(0xFF).encode('latin-1'))}",
        f"name {b64('a' + chr(10) + 'b')}",
        f"name {b64('n' * 201)}",
        f"filename {b64('a' + chr(0))}",
        f"filetype {b64(chr(7))}",
        "k" * 101,
        "own " + "QUFB" * 1100,
    ],
)
def test_metadata_that_cant_be_read(service: Service, metadata: str) -> None:
    headers = {**TUS, "Upload-Length": "10", "Upload-Metadata": metadata}
    response = refused(service.client.post(UPLOADS, headers=headers), 400, "bad_request")
    assert response.json()["errors"][0]["pointer"] == "/header/Upload-Metadata"
    assert service.rows() == NOTHING
