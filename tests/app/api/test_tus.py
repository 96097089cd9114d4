"""/v1/uploads: tus 1.0.0, header by header; what only a real connection shows is elsewhere."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.datasets import resumable
from app.db import now
from app.models import Upload
from app.settings import Settings
from tests.app.api.tus import (
    BYTES,
    GOOD,
    TUS,
    UPLOADS,
    b64,
    begin,
    offset_of,
    refused,
    send,
)
from tests.app.conftest import MakeKey
from tests.app.service import NOTHING, Service


def test_the_server_says_what_it_can(service: Service) -> None:
    response = service.client.options(UPLOADS)
    assert response.status_code == 204
    assert response.headers["Tus-Version"] == "1.0.0"
    assert response.headers["Tus-Max-Size"] == str(20 * 2**30)
    assert response.headers["Tus-Checksum-Algorithm"] == "sha256,sha1"
    assert set(response.headers["Tus-Extension"].split(",")) == {
        "creation",
        "creation-with-upload",
        "expiration",
        "checksum",
        "termination",
    }


def test_an_upload_in_three_pieces_becomes_a_dataset(service: Service) -> None:
    metadata = f"filename {b64('my digits.zip')},filetype {b64('application/zip')},own"
    url = begin(service, **{"Upload-Metadata": metadata})
    for start, stop in ((0, 100), (100, 700), (700, len(GOOD))):
        head = service.client.head(url, headers=TUS)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Upload-Offset"] == str(start)
        assert head.headers["Upload-Length"] == str(len(GOOD))
        assert head.headers["Upload-Metadata"] == metadata
        assert head.headers["Cache-Control"] == "no-store"
        assert "Tdmr-Dataset" not in head.headers
        response = send(service, url, start, GOOD[start:stop])
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["Upload-Offset"] == str(stop)
        assert response.headers["Tus-Resumable"] == "1.0.0"
    head = service.client.head(url, headers=TUS)
    assert head.headers["Upload-Offset"] == str(len(GOOD))
    assert "Upload-Expires" not in head.headers
    where = response.headers["Tdmr-Dataset"]
    assert head.headers["Tdmr-Dataset"] == where
    dataset = service.client.get(where).json()
    assert (dataset["name"], dataset["status"]) == ("my digits", "processing")
    assert dataset["upload_sha256"] == hashlib.sha256(GOOD).hexdigest()
    assert dataset["check"]["status"] == "queued"
    told = service.client.get(url).json()
    assert (told["offset"], told["length"]) == (len(GOOD), len(GOOD))
    assert (told["dataset_id"], told["expires_at"]) == (dataset["id"], None)
    service.settle()
    assert service.client.get(where).json()["status"] == "ready"
    assert {file.split("/")[0] for file in service.files()} == {"datasets"}
    assert service.client.get(url).json() == told


def test_the_state_is_json_too(service: Service) -> None:
    url = begin(service)
    send(service, url, 0, GOOD[:10])
    told = service.client.get(url).json()
    assert told["id"] == url.rpartition("/")[2]
    assert (told["name"], told["offset"], told["length"]) == ("dataset", 10, len(GOOD))
    assert told["expires_at"] > told["created_at"]
    assert told["dataset_id"] is None


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"Tus-Resumable": "1.1.0"}, 412, "tus_version"),
        ({"Content-Type": "application/zip"}, 415, "unsupported_media_type"),
        ({"Upload-Offset": "x"}, 400, "bad_request"),
        ({"Upload-Offset": "99"}, 409, "offset_mismatch"),
        ({"Upload-Offset": "101"}, 409, "offset_mismatch"),
        ({"Upload-Checksum": "md5 1B2M2Y8AsgTpgAmY7PhCfg=="}, 400, "bad_request"),
        ({"Upload-Checksum": "sha1"}, 400, "bad_request"),
        ({"Upload-Checksum": "sha256 !"}, 400, "bad_request"),
        ({"Upload-Checksum": f"sha256 {b64(bytes(32))}"}, 460, "checksum_mismatch"),
    ],
)
def test_a_piece_that_cant_be_taken_changes_nothing(
    service: Service, change: dict[str, str], status: int, code: str
) -> None:
    url = begin(service)
    send(service, url, 0, GOOD[:100])
    headers = {**BYTES, "Upload-Offset": "100", **change}
    refused(service.client.patch(url, content=GOOD[100:], headers=headers), status, code)
    assert offset_of(service, url) == 100
    assert service.core.storage.path(f"parts/{url.rpartition('/')[2]}").stat().st_size == 100
    assert send(service, url, 100, GOOD[100:]).status_code == 204


def test_a_wrong_offset_says_the_right_one(service: Service) -> None:
    url = begin(service)
    send(service, url, 0, GOOD[:100])
    assert send(service, url, 0, GOOD[:100]).headers["Upload-Offset"] == "100"


@pytest.mark.parametrize("declared", [True, False])
def test_more_than_the_upload_is_long_is_413(service: Service, declared: bool) -> None:
    url = begin(service)
    send(service, url, 0, GOOD[:100])
    content: Any = GOOD[100:] + b"!"
    response = send(service, url, 100, content if declared else iter([content]))
    refused(response, 413, "too_large")
    assert offset_of(service, url) == 100
    assert service.rows()["datasets"] == 0


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_piece_with_its_checksum(service: Service, algorithm: str) -> None:
    url = begin(service)
    for start, stop in ((0, 400), (400, len(GOOD))):
        digest = hashlib.new(algorithm, GOOD[start:stop]).digest()
        header = {"Upload-Checksum": f"{algorithm} {b64(digest)}"}
        assert send(service, url, start, GOOD[start:stop], **header).status_code == 204
    assert service.rows()["datasets"] == 1


@pytest.mark.parametrize("sizes", [(1000,), (100, 900), (511, 1, 488)])
def test_what_isnt_an_archive_is_refused_as_soon_as_it_shows(
    service: Service, sizes: tuple[int, ...]
) -> None:
    url, offset = begin(service, 5000), 0
    for size in sizes:
        response = send(service, url, offset, b"?" * size)
        offset += size
        if offset >= 512:
            break
    refused(response, 422, "not_an_archive")
    refused(service.client.get(url), 404, "not_found")
    assert service.rows() == NOTHING
    assert service.files() == []


def test_an_archive_without_its_end_is_refused_with_the_last_byte(service: Service) -> None:
    url = begin(service, len(GOOD) - 22)
    refused(send(service, url, 0, GOOD[:-22]), 422, "not_an_archive")
    assert service.rows() == NOTHING
    assert service.files() == []


def test_the_last_request_may_be_repeated_and_adds_nothing(service: Service) -> None:
    url = begin(service)
    first = send(service, url, 0, GOOD)
    again = send(service, url, len(GOOD), b"")
    assert again.headers["Tdmr-Dataset"] == first.headers["Tdmr-Dataset"]
    refused(send(service, url, len(GOOD), b"more"), 413, "too_large")
    refused(send(service, url, 0, GOOD), 409, "offset_mismatch")
    assert service.rows()["datasets"] == 1


def test_a_post_may_stand_for_the_other_methods(service: Service) -> None:
    url = begin(service)
    headers = {**BYTES, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert service.client.post(url, content=GOOD[:50], headers=headers).status_code == 204
    assert offset_of(service, url) == 50
    headers = {**TUS, "X-HTTP-Method-Override": "DELETE"}
    assert service.client.post(url, headers=headers).status_code == 204
    assert service.client.head(url, headers=TUS).status_code == 404
    elsewhere = service.client.post("/v1/datasets/ds_x", headers=headers)
    assert elsewhere.status_code == 405


def test_an_upload_that_is_deleted_is_gone(service: Service) -> None:
    url = begin(service)
    send(service, url, 0, GOOD[:100])
    refused(service.client.delete(url), 412, "tus_version")
    response = service.client.delete(url, headers=TUS)
    assert (response.status_code, response.headers["Tus-Resumable"]) == (204, "1.0.0")
    refused(send(service, url, 100, GOOD[100:]), 404, "not_found")
    assert service.rows() == NOTHING
    assert service.files() == []


def test_the_dataset_of_an_upload_that_is_deleted_stays(service: Service) -> None:
    url = begin(service)
    where = send(service, url, 0, GOOD).headers["Tdmr-Dataset"]
    assert service.client.delete(url, headers=TUS).status_code == 204
    service.settle()
    assert service.client.get(where).json()["status"] == "ready"


def test_two_cant_send_to_one_upload(service: Service) -> None:
    url = begin(service)
    part = service.core.storage.part(f"parts/{url.rpartition('/')[2]}")
    assert int(refused(send(service, url, 0, GOOD), 423, "locked").headers["Retry-After"]) > 0
    refused(service.client.delete(url, headers=TUS), 423, "locked")
    assert offset_of(service, url) == 0
    part.close()
    assert send(service, url, 0, GOOD).status_code == 204


def lapse(service: Service, url: str) -> None:
    """Let the upload have expired."""
    with service.core.database.write() as session:
        past = now(session) - timedelta(seconds=1)
        chosen = Upload.id == url.rpartition("/")[2]
        session.execute(update(Upload).where(chosen).values(expires_at=past))


def test_an_upload_expires_a_day_after_its_last_byte(service: Service) -> None:
    url = begin(service)
    head = service.client.head(url, headers=TUS)
    told = parsedate_to_datetime(head.headers["Upload-Expires"])
    with service.core.database.read() as session:
        row = session.get_one(Upload, url.rpartition("/")[2])
    assert row.expires_at == row.created_at + timedelta(days=1)
    assert told == row.expires_at.replace(microsecond=0)
    lapse(service, url)
    refused(service.client.get(url), 410, "gone")
    refused(send(service, url, 0, GOOD), 410, "gone")
    refused(service.client.delete(url, headers=TUS), 410, "gone")
    resumable.forget(service.core.database, service.core.storage)
    refused(service.client.get(url), 404, "not_found")
    assert service.files() == []


def test_every_byte_puts_the_end_off(service: Service) -> None:
    url = begin(service)
    with service.core.database.write() as session:
        soon = now(session) + timedelta(seconds=60)
        session.execute(update(Upload).values(expires_at=soon))
    send(service, url, 0, GOOD[:10])
    with service.core.database.read() as session:
        expires = session.get_one(Upload, url.rpartition("/")[2]).expires_at
    assert expires is not None
    assert expires > soon + timedelta(hours=23)


def test_an_owner_has_so_many_open_uploads(
    service: Service, stranger: dict[str, str], settings: Settings
) -> None:
    settings.max_open_uploads = 2
    first = begin(service)
    begin(service)
    headers = {**TUS, "Upload-Length": "10"}
    response = refused(service.client.post(UPLOADS, headers=headers), 429, "too_many_uploads")
    assert int(response.headers["Retry-After"]) > 0
    assert len(service.files()) == 2
    assert service.client.post(UPLOADS, headers={**headers, **stranger}).status_code == 201
    send(service, first, 0, GOOD)
    assert service.client.post(UPLOADS, headers=headers).status_code == 201


def test_a_full_disk_is_507_and_keeps_what_was_durable(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = begin(service)
    send(service, url, 0, GOOD[:600])
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        refused(send(service, url, 600, GOOD[600:]), 507, "insufficient_storage")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        refused(send(service, url, 600, GOOD[600:]), 507, "insufficient_storage")
    assert offset_of(service, url) == 600
    assert service.core.storage.path(f"parts/{url.rpartition('/')[2]}").stat().st_size == 600
    assert send(service, url, 600, GOOD[600:]).status_code == 204


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_a_killed_server_had_not_counted_is_cut(service: Service) -> None:
    url = begin(service)
    send(service, url, 0, GOOD[:600])
    path = service.core.storage.path(f"parts/{url.rpartition('/')[2]}")
    with path.open("ab") as file:
        file.write(b"what was never counted")
    where = send(service, url, 600, GOOD[600:]).headers["Tdmr-Dataset"]
    dataset = service.client.get(where).json()
    assert dataset["upload_sha256"] == hashlib.sha256(GOOD).hexdigest()


@pytest.mark.parametrize("lose", [lambda path: path.unlink(), lambda path: os.truncate(path, 5)])
def test_an_upload_whose_bytes_are_lost_says_so(
    service: Service, lose: Callable[[Any], None]
) -> None:
    url = begin(service)
    send(service, url, 0, GOOD[:600])
    lose(service.core.storage.path(f"parts/{url.rpartition('/')[2]}"))
    refused(send(service, url, 600, GOOD[600:]), 410, "gone")
    assert service.client.delete(url, headers=TUS).status_code == 204


def test_a_dataset_that_cant_be_noted_leaves_the_upload_open(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("ours")

    url = begin(service)
    send(service, url, 0, GOOD[:600])
    with monkeypatch.context() as patched:
        patched.setattr("app.jobs.moves.submit", broken)
        refused(send(service, url, 600, GOOD[600:]), 500, "internal")
    assert offset_of(service, url) == 600
    assert send(service, url, 600, GOOD[600:]).status_code == 204
    assert service.rows()["datasets"] == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("PUT", UPLOADS, 405), ("GET", f"{UPLOADS}/up_none", 404), ("GET", f"{UPLOADS}?x=1", 405)],
)
def test_every_error_names_the_version(
    service: Service, method: str, path: str, status: int
) -> None:
    response = service.client.request(method, path)
    assert (response.status_code, response.headers["Tus-Resumable"]) == (status, "1.0.0")


def test_without_a_key_too(anonymous: TestClient, make_key: MakeKey) -> None:
    response = anonymous.post(UPLOADS, headers=TUS)
    assert (response.status_code, response.headers["Tus-Resumable"]) == (401, "1.0.0")
    assert "Tus-Resumable" not in anonymous.get("/v1/datasets").headers


def test_the_document_tells_of_bytes_and_headers(anonymous: TestClient) -> None:
    paths = anonymous.get("/openapi.json").json()["paths"]
    assert set(paths[UPLOADS]) == {"options", "post"}
    one = paths[f"{UPLOADS}/{{upload_id}}"]
    assert set(one) == {"get", "patch", "delete"}
    assert list(one["patch"]["requestBody"]["content"]) == ["application/offset+octet-stream"]
    named = {each["name"] for each in one["patch"]["parameters"]}
    assert named == {"upload_id", "Tus-Resumable", "Upload-Offset", "Upload-Checksum"}
    told = one["patch"]["responses"]["204"]["headers"]
    assert set(told) == {"Upload-Offset", "Upload-Expires", "Tdmr-Dataset"}
