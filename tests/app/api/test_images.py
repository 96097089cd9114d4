"""/v1/datasets/{id}/images and /report: what a dataset holds, and what its check found."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.app.datasets import tarballs
from tests.app.datasets.zips import good_files, pack, png
from tests.app.service import Service

SPLITS = {f"train/{name}": data for name, data in good_files(6).items()}
SPLITS |= {f"test/{label}/x.png": png(5000 + n) for n, label in enumerate("ab")}


@pytest.fixture
def dataset_id(service: Service) -> str:
    found: str = service.dataset(pack(SPLITS))["id"]
    return found


def names(service: Service, path: str) -> list[str]:
    """The sources of all images, page by page."""
    found: list[str] = []
    next_path: str | None = path
    while next_path is not None:
        response = service.client.get(next_path)
        assert response.status_code == 200, response.text
        found += [image["source"] for image in response.json()["data"]]
        link = response.headers.get("Link")
        next_path = link.partition(">")[0].removeprefix("<") if link else None
    return found


def test_images_are_paged_in_order(service: Service, dataset_id: str) -> None:
    expected = [f"train/{label}/{n}.png" for label in "ab" for n in range(6)]
    expected += ["test/a/x.png", "test/b/x.png"]
    assert names(service, f"/v1/datasets/{dataset_id}/images?limit=5") == expected
    assert names(service, f"/v1/datasets/{dataset_id}/images") == expected


@pytest.mark.parametrize(
    ("query", "count"),
    [("split=test", 2), ("split=train", 12), ("label=b", 7), ("split=train&label=a", 6),
     ("split=val", 0), ("label=nobody", 0)],
)  # fmt: skip
def test_images_of_a_split_and_a_class(
    service: Service, dataset_id: str, query: str, count: int
) -> None:
    found = names(service, f"/v1/datasets/{dataset_id}/images?{query}&limit=4")
    assert len(found) == len(set(found)) == count
    for name in found:
        assert all(part.split("=")[1] in name.split("/") for part in query.split("&"))


def test_a_thumbnail_is_a_small_jpeg_that_may_be_kept(service: Service, dataset_id: str) -> None:
    image = service.client.get(f"/v1/datasets/{dataset_id}/images").json()["data"][3]
    response = service.client.get(image["thumbnail_url"])
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "image/jpeg"
    assert "immutable" in response.headers["Cache-Control"]
    with Image.open(io.BytesIO(response.content)) as small:
        assert small.size == (8, 8)
    again = service.client.get(
        image["thumbnail_url"], headers={"If-None-Match": response.headers["ETag"]}
    )
    assert again.status_code == 304


@pytest.mark.parametrize(("number", "status"), [("14", 404), ("-1", 422), ("x", 422)])
def test_a_thumbnail_that_isnt_there(
    service: Service, dataset_id: str, number: str, status: int
) -> None:
    response = service.client.get(f"/v1/datasets/{dataset_id}/images/{number}")
    assert response.status_code == status


def test_a_dataset_that_isnt_ready_has_no_images(service: Service) -> None:
    invalid = service.dataset(pack(good_files(3, "a")))
    response = service.client.get(f"/v1/datasets/{invalid['id']}/images")
    assert response.status_code == 409
    assert "invalid" in response.json()["detail"]


def test_the_report_has_every_finding_with_its_advice(service: Service) -> None:
    files = {**good_files(), "a/8.png": b"text", "a/9.png": b"", "b/8.gif": b"GIF89a"}
    invalid = service.dataset(pack(files))
    report = service.client.get(f"/v1/datasets/{invalid['id']}/report").json()
    assert report["status"] == "invalid"
    found = {(each["code"], each["file"]) for each in report["findings"]}
    assert found == {
        ("unsupported_image", "a/8.png"),
        ("empty_file", "a/9.png"),
        ("unsupported_image", "b/8.gif"),
    }
    assert all(each["advice"] for each in report["findings"])


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (tarballs.pack(good_files()), "application/x-tar"),
        (tarballs.zipped(tarballs.pack(good_files())), "application/gzip"),
        (tarballs.zipped(tarballs.pack(good_files())), "application/octet-stream"),
    ],
)
def test_a_tar_archive_becomes_a_dataset(service: Service, content: bytes, kind: str) -> None:
    made = service.client.post("/v1/datasets", content=content, headers={"Content-Type": kind})
    assert made.status_code == 201, made.text
    service.settle()
    found = service.client.get(f"/v1/datasets/{made.json()['id']}").json()
    assert (found["status"], found["findings"]) == ("ready", [])
