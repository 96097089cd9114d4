"""POST /v1/uploads with an Idempotency-Key: an upload is begun once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app.access import keys
from app.access.scopes import ALL
from app.db import Database, now
from app.main import create_app
from app.models import Upload
from app.settings import Settings
from tests.app.api.tus import BYTES, GOOD, TUS, UPLOADS, b64, offset_of, refused, send
from tests.app.service import NOTHING, Service
from tests.app.webhooks.nets import nowhere

MANY = 8
KEY = {"Idempotency-Key": "k"}
ASKED = {**TUS, **KEY, "Upload-Length": str(len(GOOD)), "Upload-Metadata": f"name {b64('mine')}"}


def begun(service: Service, **headers: str) -> Any:
    """The answer to a beginning, or to its repeat."""
    response = service.client.post(UPLOADS, headers={**ASKED, **headers})
    assert response.status_code == 201, response.text
    return response


def test_a_repeat_gets_the_same_upload_as_it_is_now(service: Service) -> None:
    first = begun(service)
    assert "Idempotency-Replayed" not in first.headers
    url = first.headers["Location"]
    rows, files = service.rows(), service.files()
    log = service.client.get("/v1/audit-log").json()
    second = begun(service)
    assert (second.headers["Location"], second.headers["Idempotency-Replayed"]) == (url, "true")
    assert second.json() == first.json()
    assert (service.rows(), service.files()) == (rows, files)
    assert service.client.get("/v1/audit-log").json() == log
    send(service, url, 0, GOOD[:100])
    third = begun(service)
    assert (third.headers["Location"], third.headers["Upload-Offset"]) == (url, "100")
    dataset = send(service, url, 100, GOOD[100:]).headers["Tdmr-Dataset"]
    last = begun(service)
    assert (last.headers["Tdmr-Dataset"], last.headers["Location"]) == (dataset, url)
    assert service.rows() == {**rows, "datasets": 1, "jobs": 1, "events": 1}


def test_without_a_key_each_is_another(service: Service) -> None:
    headers = {name: value for name, value in ASKED.items() if name not in KEY}
    found = [service.client.post(UPLOADS, headers=headers).headers for _ in range(2)]
    assert found[0]["Location"] != found[1]["Location"]
    assert begun(service, **{"Idempotency-Key": "other"}).headers["Location"] not in {
        each["Location"] for each in found
    }


@pytest.mark.parametrize(
    "other", [{"Upload-Length": "9"}, {"Upload-Metadata": f"name {b64('yours')}"}]
)
def test_another_request_cant_have_the_key(service: Service, other: dict[str, str]) -> None:
    begun(service)
    rows, files = service.rows(), service.files()
    response = service.client.post(UPLOADS, headers={**ASKED, **other})
    refused(response, 422, "idempotency_key_reused")
    assert (service.rows(), service.files()) == (rows, files)


def test_keys_are_each_owners_own(service: Service, stranger: dict[str, str]) -> None:
    mine = begun(service).headers["Location"]
    theirs = begun(service, **stranger)
    assert "Idempotency-Replayed" not in theirs.headers
    assert theirs.headers["Location"] != mine


def test_a_repeat_takes_no_room(service: Service, settings: Settings) -> None:
    settings.max_open_uploads = 1
    url = begun(service).headers["Location"]
    settings.quota_stored_bytes = 1
    assert begun(service).headers["Location"] == url


def test_bytes_that_come_along_with_a_repeat_are_dropped(service: Service) -> None:
    headers = {**ASKED, **BYTES}
    first = service.client.post(UPLOADS, content=GOOD[:300], headers=headers)
    second = service.client.post(UPLOADS, content=GOOD[:300], headers=headers)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert first.headers["Upload-Offset"] == second.headers["Upload-Offset"] == "300"
    url = second.headers["Location"]
    assert send(service, url, 300, GOOD[300:]).status_code == 204
    with service.core.database.read() as session:
        upload = session.get_one(Upload, url.rpartition("/")[2])
    assert (upload.received_bytes, upload.dataset_id is None) == (len(GOOD), False)


def test_bytes_that_arrived_wrong_leave_the_upload_to_be_gone_on_with(service: Service) -> None:
    headers = {**ASKED, **BYTES, "Upload-Checksum": f"sha1 {b64(bytes(20))}"}
    response = service.client.post(UPLOADS, content=GOOD[:300], headers=headers)
    refused(response, 460, "checksum_mismatch")
    again = begun(service)
    assert (again.headers["Idempotency-Replayed"], again.headers["Upload-Offset"]) == ("true", "0")
    assert send(service, again.headers["Location"], 0, GOOD).status_code == 204


def test_what_is_no_archive_or_deleted_leaves_the_key_free(service: Service) -> None:
    refused(
        service.client.post(UPLOADS, content=b"no" * 300, headers={**ASKED, **BYTES}),
        422,
        "not_an_archive",
    )
    assert service.rows() == NOTHING
    assert service.files() == []
    url = begun(service).headers["Location"]
    assert service.client.delete(url, headers=TUS).status_code == 204
    again = begun(service)
    assert "Idempotency-Replayed" not in again.headers
    assert offset_of(service, again.headers["Location"]) == 0


def test_the_key_of_an_expired_upload_is_gone(service: Service) -> None:
    begun(service)
    with service.core.database.write() as session:
        session.execute(update(Upload).values(expires_at=now(session)))
    files = service.files()
    refused(service.client.post(UPLOADS, headers=ASKED), 410, "gone")
    assert service.files() == files


def test_the_database_decides(any_database: Database, settings: Settings) -> None:
    """Requests at the same moment begin one upload, and leave one part."""
    url = any_database.engine.url.render_as_string(hide_password=False)
    app = create_app(Settings(data_dir=settings.data_dir, database_url=url), nowhere())
    with any_database.write() as session:
        token = keys.create(session, owner="ana", name="test", scopes=ALL)[1]
    barrier = Barrier(MANY)

    def run(_: int) -> tuple[int, str, bool]:
        barrier.wait()
        answer = client.post(UPLOADS, headers=ASKED)
        return (
            answer.status_code,
            answer.headers["Location"],
            "Idempotency-Replayed" in answer.headers,
        )

    with TestClient(app, headers={"Authorization": f"Bearer {token}"}) as client:
        with ThreadPoolExecutor(MANY) as pool:
            found = list(pool.map(run, range(MANY)))
        storage = app.state.core.storage
    assert {status for status, *_ in found} == {201}
    assert len({location for _, location, _ in found}) == 1
    assert sorted(replayed for *_, replayed in found) == [False] + [True] * (MANY - 1)
    with any_database.read() as session:
        assert session.scalar(select(func.count()).select_from(Upload)) == 1
    assert len(storage.older_than(0, "parts")) == 1
