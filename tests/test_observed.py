"""What operators see of one job, from the request that ordered it to the process that trained it.

A real server, a real worker and a real training, looked at from outside.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import metrics
from benchmarks.served import ROOT, Running, serving
from tdmr.client import Client
from tests.shapes import draw_dataset
from tests.support import end, wait_until
from tests.test_own_foundations import ONCE
from worker.kinds import Distil

TOKEN = "operators-alone"
ORDER = "order-7.1"  # the request's id, given by the client
# What nvidia-smi prints, of a GPU and of one that is split into parts.
SMI = "#!/bin/sh\necho '0, 35, 1024, 81559'\necho '1, [N/A], 5, 81559'\n"
LISTED = re.compile(r"^\| `([a-z_]+)` \|", re.MULTILINE)

Line = dict[str, Any]


@dataclass
class Seen:
    """What there was to see once the job's student was there."""

    student: dict[str, Any]
    job_id: str
    server: str  # /metrics, as text
    worker: str
    lines: list[Line]  # of the worker's log


@contextmanager
def working(server: Running, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A worker of its own beside a server, and its log; it finds a GPU's program."""
    smi = folder / "nvidia-smi"
    smi.write_text(SMI)
    smi.chmod(0o755)
    given = {name: value for name, value in os.environ.items() if not name.startswith("TDMR_")}
    given |= {"TDMR_DATA_DIR": str(server.data), "TDMR_POLL_SECONDS": "0.2"}
    given["PATH"] = f"{folder}{os.pathsep}{given['PATH']}"
    command = [sys.executable, "-m", "worker", "--device", "cpu", "--metrics-port", "0"]
    path = folder / "worker.log"
    with path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=given, cwd=ROOT)
    try:
        yield process, path
    finally:
        end(process)


def lines_of(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def port_of(path: Path) -> int | None:
    return next((line["port"] for line in lines_of(path) if line["event"] == "scraped"), None)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("observed")
    draw_dataset(folder / "images", {"train": 4, "test": 3})
    with (
        serving(folder, "--no-worker", metrics_token=TOKEN) as server,
        working(server, folder) as (process, log),
        Client(server.address, server.key) as client,
    ):
        wait_until(lambda: port_of(log), process)
        dataset = client.upload_dataset(folder / "images").wait()
        spec = {"foundation": "letters_vit", "student": "test_resnet", "baselines": []}
        order = {"dataset_id": dataset.id, **spec, "options": ONCE.model_dump(mode="json")}
        with server.client() as http:
            made = http.post("/v1/jobs", json=order, headers={"X-Request-Id": ORDER})
            assert made.headers["X-Request-Id"] == ORDER
            job = client.job(made.json()["id"]).wait()
            student = client.student(job.student_id or "")
            answer = http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        worker = httpx.get(f"http://127.0.0.1:{port_of(log)}/metrics")
        yield Seen(student.metrics, job.id, answer.text, worker.text, lines_of(log))


def families(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(text: str, name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_the_request_can_be_followed_into_the_trainings_process(seen: Seen) -> None:
    mine = [line for line in seen.lines if line.get("request_id") == ORDER]
    of_the_job = [line for line in mine if line["job_id"] == seen.job_id]
    assert {line["event"] for line in of_the_job} >= {"claimed", "process", "left"}
    printed = [line["line"] for line in of_the_job if line["event"] == "process"]
    said = [json.loads(line) for line in printed if line.startswith("{")]
    assert [line["stage"] for line in said if line["event"] == "stage"] == [
        "prepare",
        "cache",
        "reprogram",
        "distil",
        "evaluate",
    ]
    assert said[-1]["event"] == "done"
    for line in said:
        ids = {"job_id": seen.job_id, "attempt": "1", "request_id": ORDER}
        assert ids.items() <= line.items()
    # The packaging is a job of its own, which the same request has brought about.
    packaged = {line["kind"] for line in mine if line["job_id"] != seen.job_id}
    assert packaged == {"package"}
    check = [line for line in seen.lines if line.get("kind") == "ingest"]
    assert check
    assert all(line["request_id"] not in ("", ORDER) for line in check)


def test_the_worker_counts_what_it_does(seen: Seen) -> None:
    for kind in ("ingest", "distil", "package"):
        assert value(seen.worker, "tdmr_claims_total", kind=kind) == 1
        ended = {"kind": kind, "state": "succeeded", "code": ""}
        assert value(seen.worker, "tdmr_jobs_ended_total", **ended) == 1
    forwards = seen.student["foundation"]["forwards"]
    assert value(seen.worker, "tdmr_foundation_forwards_total") == forwards > 0
    assert value(seen.worker, "tdmr_foundation_forwards_saved_total") == 0
    assert value(seen.worker, "tdmr_cache_bytes") >= seen.student["cache"]["bytes"]
    assert value(seen.worker, "tdmr_worker_busy") == 0
    assert value(seen.worker, "tdmr_sweeps_total") >= 1
    assert value(seen.worker, "tdmr_gpu_utilization_ratio") == pytest.approx(0.35)
    assert value(seen.worker, "tdmr_gpu_memory_used_bytes", gpu="0") == 2**30
    assert value(seen.server, "tdmr_workers", device="cpu") == 1
    uploads = {"method": "POST", "route": "/v1/datasets", "status": "201"}
    name = "tdmr_http_request_duration_seconds_count"
    assert value(seen.server, name, **uploads) == 1


def test_views_that_were_in_the_cache_are_counted_as_saved(seen: Seen) -> None:
    training = object.__new__(Distil)
    training._metrics = {**seen.student, "cache": {**seen.student["cache"], "reused": True}}
    before = metrics.SAVED._value.get()
    training._count_forwards()
    views, images = (
        seen.student["cache"]["views_per_image"],
        seen.student["dataset"]["train_images"],
    )
    assert metrics.SAVED._value.get() - before == views * images > 0


def test_the_guide_lists_every_metric_and_no_other(seen: Seen) -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    listed = LISTED.findall(page)
    assert len(listed) == len(set(listed))
    there = families(seen.server) | families(seen.worker)
    counters = {name + "_total" if each.type == "counter" else name for name, each in there.items()}
    assert set(listed) == counters
    for name, each in there.items():
        assert each.documentation.endswith((".", "seconds")) or name.startswith("process_"), name
