"""A sweep through real parts, with two workers: each view is shown to the foundation once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx

from app.settings import Settings
from tdmr.client import Client
from tdmr.config import ExportOptions
from tests.shapes import draw_dataset, zip_folder
from tests.test_journey import TINY, serving
from tests.worker.scenes import poller_worker

STUDENTS = ["test_resnet", "test_efficientnet", "test_convnext"]
VIEWS = 12 * 2  # training images, and views of each


def ended(api: httpx.Client, url: str) -> dict[str, Any]:
    """The sweep, once all its jobs have ended."""
    deadline = time.monotonic() + 300
    while True:
        found: dict[str, Any] = api.get(url).json()
        if found["status"] == "ended":
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def test_a_sweep_shows_each_view_once(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "shapes", {"train": 4, "test": 3})
    archive = tmp_path / "shapes.zip"
    archive.write_bytes(zip_folder(tmp_path / "shapes"))
    changes = {"exports": ExportOptions(formats=("onnx",), latency_runs=20), "audit": False}
    options = TINY.model_copy(update=changes).model_dump(mode="json")
    order = {"foundation": "letters_vit", "students": STUDENTS, "options": options}
    with serving(tmp_path) as ready, Client(ready["address"], ready["key"]) as client:
        dataset = client.upload_dataset(archive).wait()
        headers = {"Authorization": f"Bearer {ready['key']}"}
        with (
            poller_worker(Settings(data_dir=tmp_path / "data", poll_seconds=0.2)),
            httpx.Client(base_url=ready["address"], headers=headers) as api,
        ):
            body = {**order, "dataset_id": dataset.id, "baselines": []}
            made = api.post("/v1/sweeps", json=body)
            assert made.status_code == 201, made.text
            sweep = ended(api, made.headers["Location"])
            jobs = [api.get(f"/v1/jobs/{job['job_id']}").json() for job in sweep["jobs"]]
            history = api.get("/v1/estimates").json()
            again = api.post("/v1/jobs?dry_run=true", json=next_order(body, dataset.id)).json()
        students = [client.student(job["student_id"]).metrics for job in sweep["jobs"]]
    assert sweep["counts"] == {"succeeded": 3}
    # Whoever finds the features there compares 1 % of the views, at least one, with the foundation.
    assert [each["foundation"]["forwards"] for each in students] == [VIEWS, 1, 1]
    assert [each["cache"]["reused"] for each in students] == [False, True, True]
    assert sweep["foundation_forwards"] == VIEWS + 2
    rows = sweep["result"]["rows"]
    assert sorted(row["student"] for row in rows) == sorted(STUDENTS)
    assert sweep["result"]["cost"] == "latency_p50_ms"
    assert any(row["on_front"] for row in rows)
    assert all(row["latency_p50_ms"] > 0 and row["file_bytes"] > 0 for row in rows)
    # Nothing was known when they were ordered; what they took is known now.
    assert {job["estimate"]["seconds"] for job in jobs} == {None}
    assert all(job["estimate"]["actual_seconds"] > 0 for job in jobs)
    assert history["count"] == 0
    assert (again["ok"], again["estimate"]["basis"]) == (True, "same")
    assert (again["estimate"]["cache"], again["estimate"]["foundation_forwards"]) == ("warm", 0)
    assert 0 < again["estimate"]["low"] < again["estimate"]["seconds"] < again["estimate"]["high"]


def next_order(body: dict[str, Any], dataset_id: str) -> dict[str, Any]:
    """One more job like those of the sweep."""
    same = {name: body[name] for name in ("foundation", "options", "baselines")}
    return {**same, "dataset_id": dataset_id, "student": STUDENTS[0]}
