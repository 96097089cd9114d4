"""The API over an object store: what it gives is what it gives over a local folder."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.api.core import Core
from app.errors import DamagedFileError
from app.models import Student
from app.settings import Settings
from app.students import service as students
from app.students import sessions
from tests.app.api.tus import GOOD, begin, send
from tests.app.service import BUNDLE, ZIP, Service
from tests.stores import Store, store
from tests.support import end, wait_until

WEIGHTS = BUNDLE["model.safetensors"]


@pytest.fixture(scope="module", params=["rclone", "moto"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """Where this module's files are stored."""
    with store(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def given() -> dict[str, Any]:
    """Further settings."""
    return {}


@pytest.fixture
def settings(place: Store, tmp_path: Path, given: dict[str, Any]) -> Settings:
    """A service whose files are in the store."""
    (tmp_path / "var").mkdir()
    more = place.settings(storage_retry_seconds=0.5)
    return Settings(data_dir=tmp_path / "var", **more, **given)


@pytest.fixture
def weights(service: Service) -> str:
    return f"/v1/students/{service.student()['id']}/files/model.safetensors"


def test_a_file_comes_whole_in_part_or_not_again(service: Service, weights: str) -> None:
    whole = service.client.get(weights)
    assert (whole.status_code, whole.content) == (200, WEIGHTS)
    assert whole.headers["Repr-Digest"].startswith("sha-256=:")
    head = service.client.head(weights)
    assert (head.headers["Content-Length"], head.content) == (str(len(WEIGHTS)), b"")
    part = service.client.get(weights, headers={"Range": "bytes=100-299"})
    assert (part.status_code, part.content) == (206, WEIGHTS[100:300])
    again = service.client.get(weights, headers={"If-None-Match": whole.headers["ETag"]})
    assert again.status_code == 304
    beyond = service.client.get(weights, headers={"Range": "bytes=9999999-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")


def test_the_archive_and_a_part_of_it(service: Service, weights: str) -> None:
    url = weights.partition("/files/")[0] + "/archive"
    whole = service.client.get(url).content
    with zipfile.ZipFile(io.BytesIO(whole)) as read:
        assert {name: read.read(name) for name in BUNDLE} == BUNDLE
    part = service.client.get(url, headers={"Range": f"bytes=1000-{len(whole) - 1}"})
    assert part.content == whole[1000:]


def test_a_file_that_is_gone_is_said(service: Service, weights: str) -> None:
    service.core.storage.delete("students")
    for url in (weights, weights.partition("/files/")[0] + "/archive"):
        response = service.client.get(url)
        assert (response.status_code, response.json()["code"]) == (500, "damaged_file")


def test_images_and_thumbnails(service: Service) -> None:
    url = f"/v1/datasets/{service.dataset()['id']}/images"
    rows = service.client.get(url, params={"limit": 3}).json()["data"]
    assert [row["number"] for row in rows] == [0, 1, 2]
    with Image.open(io.BytesIO(service.client.get(rows[1]["thumbnail_url"]).content)) as image:
        assert image.format == "JPEG"
    service.core.storage.delete("datasets")
    gone = service.client.get(url)
    assert (gone.status_code, gone.json()["code"]) == (500, "damaged_file")


def test_what_a_session_loads_is_what_was_stored(service: Service, core: Core) -> None:
    with core.database.read() as session:
        student = session.get_one(Student, service.student()["id"])
    file = students.file_of(student, "model.safetensors")
    assert sessions.read(core.storage, file) == WEIGHTS
    with core.storage.writing(file.key) as writer:
        writer.write(WEIGHTS[:-1] + b"?")
    with pytest.raises(DamagedFileError):
        sessions.read(core.storage, file)


def parts_here(core: Core) -> list[Path]:
    return [path for path in core.settings.storage_dir.rglob("up_*") if path.is_file()]


def test_a_resumable_upload_lies_here_until_it_is_whole(service: Service, core: Core) -> None:
    url = begin(service)
    assert send(service, url, 0, GOOD[:100]).status_code == 204
    assert [path.stat().st_size for path in parts_here(core)] == [100]
    done = send(service, url, 100, GOOD[100:])
    assert done.status_code == 204
    assert parts_here(core) == []
    service.settle()
    assert service.client.get(done.headers["Tdmr-Dataset"]).json()["status"] == "ready"
    assert core.storage.older_than(-60, "parts") == []


@pytest.mark.parametrize("given", [{"collect_seconds": 0.05, "upload_expire_seconds": 0.01}])
def test_what_has_expired_here_is_forgotten_by_the_server(service: Service, core: Core) -> None:
    begin(service)
    wait_until(lambda: not parts_here(core))


@pytest.mark.parametrize("given", [{"signed_downloads": True}])
def test_files_may_be_had_from_the_store_itself(service: Service, weights: str) -> None:
    part = {"Range": "bytes=100-299"}
    sent = service.client.get(weights, headers=part, follow_redirects=False)
    assert (sent.status_code, sent.content) == (307, b"")
    assert sent.headers["Repr-Digest"].startswith("sha-256=:")
    assert sent.headers["Cache-Control"] == "no-store"
    address = sent.headers["Location"]
    assert address.startswith(service.core.settings.storage_endpoint or "")
    with httpx.Client(trust_env=False) as client:  # whoever has the address needs no key
        assert client.get(address).content == WEIGHTS
        assert client.get(address, headers=part).content == WEIGHTS[100:300]
    head = service.client.head(weights, follow_redirects=False)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(WEIGHTS)))
    archive = service.client.get(weights.partition("/files/")[0] + "/archive")
    assert archive.status_code == 200


def test_a_service_is_ready_with_its_store(anonymous: TestClient) -> None:
    assert anonymous.get("/readyz").json()["checks"]["storage"] == "ok"


class TestAway:
    """The store's process ends."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Store]:
        with store("rclone", tmp_path) as running:
            yield running

    def test_requests_are_answered_503_and_lose_nothing(
        self, service: Service, weights: str, place: Store, core: Core
    ) -> None:
        dataset_id = service.dataset()["id"]
        upload = begin(service)
        send(service, upload, 0, GOOD[:100])
        before = service.rows()
        end(place.process)
        for response in (
            service.client.get(weights),
            service.client.get(weights.partition("/files/")[0] + "/archive"),
            service.client.get(f"/v1/datasets/{dataset_id}/images"),
            service.client.post("/v1/datasets", content=GOOD, headers=ZIP),
            send(service, upload, 100, GOOD[100:]),
        ):
            assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")
            assert response.headers["Retry-After"] == "5"
        assert service.rows() == before
        assert [path.stat().st_size for path in parts_here(core)] == [100]
        ready = service.client.get("/readyz")
        assert ready.status_code == 503
        assert [each["pointer"] for each in ready.json()["errors"]] == ["/checks/storage"]
